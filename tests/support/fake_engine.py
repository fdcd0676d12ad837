"""A small real program that speaks like llama-server on a unix socket and misbehaves on request.

    python -m support.fake_engine SOCKET [--loading SECONDS]     as a process
    async with FakeEngine(path) as engine: ...                   on the test's own loop

What one request gets is said in its body's `fake` object; the last `default` of the engine fills in what is left out:

    tokens          events of a stream, or tokens an answer claims (default 3)
    delay           seconds before the first byte
    prefill         seconds between the head of a stream and its first event
    pause           seconds between two events
    die_after       cut the connection after this many events (0 = right after the head, -1 = before any byte)
    cut_event       with die_after: send half of the next event first
    hang_after      go silent after this many events (-1 = before any byte)
    status, error   answer with this status and an error object of this type
    garbage         answer with bytes that are no HTTP
    twice           send a second answer behind the first
    ping            send a comment in front of the first event, as llama-server does when it takes long
    no_start        leave the first event of an Anthropic stream out
    several         answer twice in one, each with its counts, as llama.cpp's own route does
    event_bytes     size of the text in each event
    timings         false: report no counts
    unseen          with hang_after -1: tokens that it has made of the answer all the same
    clings          seconds for which it works on after its client has left
    book            false: it cannot say afterwards what a request has used, like an engine that is not ours
    book_late       for so many questions it knows nothing yet of the request, like an engine that still reads its body
    drop_first      cut the connection before any byte, the first so many times
    content_type    instead of JSON or event-stream
    slow_models     never say which models it has
    early           answer with this status before reading a body of more than 100 kB, and do not read it
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

PROMPT_TOKENS = 11
CACHED_TOKENS = 4
CORS = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"


@dataclass
class Seen:
    """One request as the engine got it, and its outcome."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)
    finished: bool = False
    dropped: bool = False  # the gateway went away before the answer was complete
    used: list[int] = field(default_factory=lambda: [0, 0, 0])  # tokens: prompt, of that cached, completion
    open: bool = True


class FakeEngine:
    """Serves on a unix socket until closed. All requests are in `seen`."""

    def __init__(self, path: Path, *, loading_seconds: float = 0.0, **default: Any) -> None:
        self.path = path
        self.default = default
        self.seen: list[Seen] = []
        self.connections = 0
        self.open_connections = 0
        self.most_per_connection = 0
        self.ready_at = time.monotonic() + loading_seconds
        self.drops = 0
        self.counts = 0  # how often it was asked what a request has used
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start listening."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Stop listening and abort every connection, as when a process is killed."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    def close_idle(self) -> int:
        """Close the idle connections, as the real one does after a while; the clients' event loop does not run."""
        for writer in self._idle:
            writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        return len(self._idle)

    @property
    def asked(self) -> list[Seen]:
        """Requests other than health checks and queries about other requests."""
        return [seen for seen in self.seen if not seen.target.startswith(("/health", "/usage"))]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._server is None:  # accepted just before the stop
            writer.transport.abort()
            return
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        served = 0
        try:
            while await self._one(reader, writer):
                served += 1
                self._idle.append(writer)
                self.most_per_connection = max(self.most_per_connection, served)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            if writer in self._idle:
                self._idle.remove(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if writer in self._idle:
            self._idle.remove(writer)
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if length > 100_000 and (early := self.default.get("early")):
            await _whole(writer, early, error("invalid_request_error", "without having read it", early))
            return True
        body = await reader.readexactly(length)
        seen = Seen(method, target, headers, body)
        self.seen.append(seen)
        if time.monotonic() < self.ready_at:
            seen.open = False
            await _whole(writer, 503, error("unavailable_error", "Loading model", 503))
            return True
        if target == "/health":
            await _whole(writer, 200, {"status": "ok"})
            return True
        answering = asyncio.ensure_future(self._answer(seen, writer))
        gone = asyncio.ensure_future(_closed(reader))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                seen.dropped = True
                await asyncio.sleep(_knobs(_json(body)).get("clings", 0))
                return False
            return await answering
        finally:
            for future in (answering, gone):
                future.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
            seen.open = False

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        """Respond to one request; return whether the connection stays open."""
        body = _json(seen.body)
        knobs = {"tokens": 3, **self.default, **_knobs(body)}
        if self.drops < knobs.get("drop_first", 0):
            self.drops += 1
            return False
        if seen.target.startswith(("/v1/models", "/slots", "/metrics", "/props", "/lora")):
            await self._state(seen.target, writer)
            seen.finished = True
            return True
        if seen.target.startswith("/usage"):
            await self._usage(seen.target.partition("?id=")[2], writer)
            seen.finished = True
            return True
        await asyncio.sleep(knobs.get("delay", 0))
        if not knobs.get("status") and "garbage" not in knobs and knobs.get("die_after") != -1:
            seen.used = [PROMPT_TOKENS, CACHED_TOKENS, 0]
        if knobs.get("hang_after") == -1:
            seen.used[2] = knobs.get("unseen", 0)
            await asyncio.sleep(3600)
        if knobs.get("die_after") == -1:
            return False
        if "garbage" in knobs:
            writer.write(knobs["garbage"].encode("latin-1"))
            await writer.drain()
            await asyncio.sleep(3600)
        if knobs.get("status"):
            kind = knobs.get("error", "invalid_request_error")
            await _whole(writer, knobs["status"], error(kind, knobs.get("message", "as asked"), knobs["status"]))
        elif body.get("stream") is True:
            if not await self._stream(seen, knobs, writer):
                return False
        else:
            count = int(body.get("n") or 1)
            seen.used[2] = count * knobs["tokens"]
            value: Any = [answer(knobs), answer(knobs)] if knobs.get("several") else answer(knobs, count)
            await _whole(writer, 200, value, knobs.get("content_type", "application/json"), knobs)
        if knobs.get("twice"):
            await _whole(writer, 200, {"second": "answer"})
        seen.finished = True
        return True

    async def _usage(self, usage_id: str, writer: asyncio.StreamWriter) -> None:
        """Report the token counts of a request, as our patched llama-server does."""
        if usage_id:
            self.counts += 1
        if not self.default.get("book", True):
            await _whole(writer, 404, error("not_found_error", "File Not Found", 404))
            return
        asked = [seen for seen in self.seen if seen.headers.get("x-usage-id") == usage_id]
        sums = [sum(numbers) for numbers in zip(*(seen.used for seen in asked), strict=True)] or [0, 0, 0]
        names = ("prompt_tokens", "cached_tokens", "completion_tokens")
        if self.counts <= self.default.get("book_late", 0):  # it has not come to the request yet
            asked, sums = [], [0, 0, 0]
        state = {
            "cache_scope": self.default.get("scopes", True),
            "known": bool(asked),
            "open": sum(seen.open for seen in asked),
        }
        await _whole(writer, 200, {**state, **dict(zip(names, sums, strict=True))})

    async def _state(self, target: str, writer: asyncio.StreamWriter) -> None:
        if target == "/metrics":
            name = b"llamacpp:n_decode_total"
            text = b"# HELP %b decodes\n# TYPE %b counter\n%b 7\n" % (name, name, name)
            await _raw(writer, 200, text, "text/plain; version=0.0.4")
        elif target.startswith("/v1/models"):
            await asyncio.sleep(3600 if self.default.get("slow_models") else 0)
            entry = {
                "id": "/models/secret/tiny.gguf",
                "object": "model",
                "created": 1,
                "owned_by": "llamacpp",
                "meta": {"n_ctx_train": 2048, "n_params": 9, "file": "/models/secret/tiny.gguf"},
            }
            await _whole(writer, 200, {"object": "list", "data": [entry], "models": [{"name": "/models/secret"}]})
        elif target.startswith("/props") and not self.default.get("knows_props", True):
            await _whole(writer, 404, error("not_found_error", "File Not Found", 404))
        elif target.startswith("/props"):
            props = {"total_slots": 2, "model_path": "/models/secret/tiny.gguf", "ui_settings": {}}
            await _whole(writer, 200, {**props, **self.default.get("props", {})})
        else:
            await _whole(writer, 200, [{"id": 0, "target": target}])

    async def _stream(self, seen: Seen, knobs: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        media = knobs.get("content_type", "text/event-stream")
        writer.write(
            f"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\n{CORS}Content-Type: {media}\r\n"
            "Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n".encode()
        )
        await writer.drain()
        await asyncio.sleep(knobs.get("prefill", 0))
        if knobs.get("ping"):
            writer.write(_chunk(b":\n\n"))
            await writer.drain()
            await asyncio.sleep(0.05)
        for number in range(knobs["tokens"] + 2):
            await writer.drain()
            if knobs.get("die_after") == number:
                if knobs.get("cut_event"):
                    event = _event(number, knobs)
                    writer.write(_chunk(event)[: len(event) // 2])
                    await writer.drain()
                return False
            if knobs.get("hang_after") == number:
                await asyncio.sleep(3600)
            if number and knobs.get("pause"):
                await asyncio.sleep(knobs["pause"])
            if event := _event(number, knobs, anthropic=seen.target == "/v1/messages"):
                seen.used[2] = min(number + 1, knobs["tokens"])
                writer.write(_chunk(event))
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return False  # as the real one does


def _knobs(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a request asks of the fake; `metadata` is a field that the gateway lets through."""
    metadata = body.get("metadata")
    found: dict[str, Any] = metadata.get("fake", {}) if isinstance(metadata, dict) else {}
    return found


def _event(number: int, knobs: dict[str, Any], *, anthropic: bool = False) -> bytes:
    """Return the n-th event: tokens, then the one with the counts, then [DONE]."""
    if anthropic:
        return _anthropic(number, knobs)
    if number < knobs["tokens"]:
        text = "x" * knobs.get("event_bytes", 4)
        chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    elif number == knobs["tokens"]:
        chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        if knobs.get("timings", True):
            chunk["timings"] = timings(knobs["tokens"])
    else:
        return b"data: [DONE]\n\n"
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _anthropic(number: int, knobs: dict[str, Any]) -> bytes:
    """Return what is sent for the n-th token, with the events at its position in the stream."""
    events: list[dict[str, Any]] = []
    if number == 0:
        usage = {"input_tokens": PROMPT_TOKENS - CACHED_TOKENS, "cache_read_input_tokens": CACHED_TOKENS}
        if not knobs.get("no_start"):
            events.append({"type": "message_start", "message": {"id": "m", "usage": usage, "stop_reason": None}})
        events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    if number < knobs["tokens"]:
        text = "x" * knobs.get("event_bytes", 4)
        events.append({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
    elif number == knobs["tokens"]:
        events.append({"type": "content_block_stop", "index": 0})
        ended: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
        if knobs.get("timings", True):
            ended["usage"] = {"output_tokens": knobs["tokens"]}
        events += [ended, {"type": "message_stop"}]
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event, separators=(",", ":")).encode())
        for event in events
    )


def timings(tokens: int) -> dict[str, Any]:
    """Return the counts at the end of a response of `tokens` tokens."""
    return {
        "cache_n": CACHED_TOKENS,
        "prompt_n": PROMPT_TOKENS - CACHED_TOKENS,
        "prompt_ms": 1.5,
        "predicted_n": tokens,
        "predicted_ms": 2.5,
        "predicted_per_second": 400.0,
    }


def answer(knobs: dict[str, Any], choices: int = 1) -> dict[str, Any]:
    """Return a whole chat response. `usage` has the sums of all choices, `timings` those of the first only."""
    tokens = knobs["tokens"]
    message = {"role": "assistant", "content": "x" * (knobs.get("event_bytes", 4) * tokens)}
    body: dict[str, Any] = {
        "choices": [{"index": index, "message": message, "finish_reason": "stop"} for index in range(choices)],
        "object": "chat.completion",
    }
    if knobs.get("timings", True):
        body["usage"] = {
            "completion_tokens": tokens * choices,
            "prompt_tokens": PROMPT_TOKENS,
            "total_tokens": tokens * choices + PROMPT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }
        body["timings"] = timings(tokens)
    return body


def error(kind: str, message: str, code: int) -> dict[str, Any]:
    """Return an error as llama-server shapes it: `code` is a number there."""
    return {"error": {"code": code, "message": message, "type": kind}}


async def _whole(
    writer: asyncio.StreamWriter,
    status: int,
    value: Any,
    media: str = "application/json; charset=utf-8",
    knobs: dict[str, Any] | None = None,
) -> None:
    await _raw(writer, status, json.dumps(value, separators=(",", ":")).encode(), media, knobs)


async def _raw(
    writer: asyncio.StreamWriter, status: int, body: bytes, media: str, knobs: dict[str, Any] | None = None
) -> None:
    head = (
        f"HTTP/1.1 {status} Whatever\r\nServer: llama.cpp\r\n{CORS}Content-Type: {media}\r\n"
        f"Content-Length: {len(body)}\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
    )
    data = head.encode() + body
    if knobs and knobs.get("die_after") is not None:
        writer.write(data[:-5])
        await writer.drain()
        writer.transport.abort()
        raise ConnectionResetError
    writer.write(data)
    await writer.drain()


async def _closed(reader: asyncio.StreamReader) -> None:
    """Return when the peer has disconnected."""
    while not (reader.at_eof() or reader.exception()):  # noqa: ASYNC110 - a StreamReader has no event for it
        await asyncio.sleep(0.005)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def _main(arguments: argparse.Namespace) -> None:
    async with FakeEngine(arguments.socket, loading_seconds=arguments.loading):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("--loading", type=float, default=0.0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(parser.parse_args()))
