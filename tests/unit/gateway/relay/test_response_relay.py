"""A request's way to the engine and back, on real sockets with a fake engine."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import cast

import pytest

from llama_gguf.gateway.api.routes import RouteTable
from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.chunked import chunk
from llama_gguf.gateway.http1.message import Request, RequestHead
from llama_gguf.gateway.relay.response_relay import ResponseRelay, ResponseTimeouts
from llama_gguf.gateway.translate.responses import ResponsesTranslation
from llama_gguf.gateway.upstream.client import EngineConnection
from llama_gguf.gateway.upstream.response_parser import ResponseHead
from support.fake_engine import CACHED_TOKENS, PROMPT_TOKENS
from support.http_client import read_answer, request_bytes
from support.running_gateway import Running, Start, chat


async def test_a_plain_answer_is_relayed_whole(running: Running) -> None:
    answer = await running.chat(tokens=5)
    assert answer.status == 200
    assert answer.json()["usage"]["completion_tokens"] == 5
    assert answer.headers["content-type"].startswith("application/json")
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["server"] == "llama-gguf"


@pytest.mark.parametrize("media", ["text/event-stream; charset=utf-8", "Text/Event-Stream;charset=UTF-8;x=y"])
async def test_a_stream_is_one_whatever_parameters_its_type_has(running: Running, media: str) -> None:
    answer = await running.stream(tokens=4, content_type=media)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert len(answer.events) == 6
    assert (await running.lines())[0]["tokens_out"] == 4


async def test_a_stream_is_relayed_byte_for_byte(running: Running) -> None:
    answer = await running.stream(tokens=4)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"  # requests and Spring need it
    assert answer.headers["x-accel-buffering"] == "no"
    assert "access-control-allow-origin" not in answer.headers
    assert len(answer.events) == 6
    assert answer.events[-1] == "data: [DONE]"
    line = (await running.lines())[0]
    assert (line["status"], line["outcome"], line["finish"]) == (200, "ok", "stop")
    assert (line["tokens_in"], line["tokens_cached"], line["tokens_out"]) == (PROMPT_TOKENS, CACHED_TOKENS, 4)


@pytest.mark.parametrize("value", [False, None, "true", 1, []])
async def test_only_true_asks_for_a_stream_as_in_the_engine(running: Running, value: object) -> None:
    answer = await running.ask("POST", "/v1/chat/completions", body={**chat(), "stream": value})
    assert answer.headers["content-type"].startswith("application/json")
    assert (await running.lines())[0]["stream"] is False


@pytest.mark.parametrize("streams", [False, True])
async def test_an_error_of_the_engine_keeps_its_status_and_gets_a_string_code(running: Running, streams: bool) -> None:
    answer = await running.ask(
        "POST", "/v1/chat/completions", body=chat(stream=streams, status=400, error="exceed_context_size_error")
    )
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert (await running.lines())[0]["status"] == 400


async def test_an_internal_error_of_the_engine_is_a_500_that_is_counted_as_one(running: Running) -> None:
    answer = await running.chat(status=500, error="server_error", message="cannot open /models/secret/tiny.gguf")
    assert answer.status == 500
    assert answer.error["code"] == "engine_error"
    assert "secret" not in answer.error["message"]
    line = (await running.lines())[0]
    assert (line["status"], line["outcome"]) == (500, "engine_error")


async def test_the_engine_refusing_our_key_is_not_the_clients_fault(running: Running) -> None:
    answer = await running.chat(status=401, error="authentication_error")
    assert answer.status == 502
    assert answer.error["code"] == "engine_refused"


async def test_an_engine_that_dies_in_a_stream_gives_one_error_event_and_a_clean_end(running: Running) -> None:
    answer = await running.stream(tokens=10, die_after=3)
    assert answer.complete
    assert len(answer.events) == 4
    error = json.loads(answer.events[-1].removeprefix("data: "))["error"]
    assert error["code"] == "engine_closed"
    line = (await running.lines())[0]
    assert (line["status"], line["outcome"], line["error"]) == (200, "upstream_error", "engine_closed")
    assert line["tokens_out"] == 3


async def test_half_an_event_is_never_let_through(running: Running) -> None:
    answer = await running.stream(tokens=10, die_after=3, cut_event=True, event_bytes=500)
    assert answer.complete
    for event in answer.events:
        json.loads(event.removeprefix("data: "))
    assert len(answer.events) == 4


async def test_an_engine_that_dies_in_a_plain_answer_gives_502(running: Running) -> None:
    answer = await running.chat(die_after=1)
    assert answer.status == 502
    assert answer.error["code"] == "engine_closed"


async def test_an_answer_that_is_no_http_gives_502(running: Running) -> None:
    answer = await running.chat(garbage="SSH-2.0-OpenSSH\r\n\r\n")
    assert answer.status == 502
    assert answer.error["code"] == "engine_protocol"
    assert len(running.engine.asked) == 1


async def test_a_second_answer_never_reaches_a_client(running: Running) -> None:
    request = request_bytes("POST", "/v1/chat/completions", body=chat(stream=True, twice=True))
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request)
    first = await read_answer(reader)
    assert first.status in (200, 502)
    writer.write(request_bytes("GET", "/ping"))
    assert (await read_answer(reader)).headers["x-request-id"] != first.headers["x-request-id"]
    writer.close()


async def test_a_timeout_in_a_stream_is_an_event_and_not_a_second_answer(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"idle_seconds": 0.3}}})
    answer = await running.stream(tokens=5, hang_after=2)
    assert answer.complete
    assert len(answer.events) == 3
    error = json.loads(answer.events[-1].removeprefix("data: "))["error"]
    assert error["code"] == "timeout"
    assert error["message"] == "The engine took longer than gateway.timeouts.idle_seconds (0.3 s)."
    assert b"HTTP/1.1" not in answer.body
    await running.until(lambda: running.engine.asked[0].dropped)


async def test_the_total_time_of_a_stream_is_bounded(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"total_seconds": 0.4}}})
    answer = await running.stream(tokens=100, pause=0.05)
    assert answer.complete
    assert '"timeout"' in answer.events[-1]
    assert 2 < len(answer.events) < 20


async def test_a_silent_stream_is_kept_open_with_comments(start: Start) -> None:
    running = await start({"gateway": {"sse_keepalive_seconds": 0.15}})
    answer = await running.stream(tokens=2, delay=0.6)
    assert answer.status == 200
    assert answer.events[0] == ": keep-alive"
    assert answer.events[-1] == "data: [DONE]"
    comments = [event for event in answer.events if event.startswith(":")]
    assert 2 <= len(comments) <= 5
    assert answer.events[: len(comments)] == comments


async def test_a_stream_that_waits_in_the_queue_is_kept_open_too(start: Start) -> None:
    running = await start({"gateway": {"sse_keepalive_seconds": 0.1}, "limits": {"max_in_flight": 1}})
    first = asyncio.create_task(running.stream(tokens=2, pause=0.2))
    await running.until(lambda: running.gateway.backends.first.admission.active == 1)
    second = await running.stream(tokens=2)
    assert re.fullmatch(r": queue-position=1 expected-wait=\d+", second.events[0])
    assert second.events[-1] == "data: [DONE]"
    assert (await first).status == 200


async def test_an_error_after_keepalive_comments_is_an_event(start: Start) -> None:
    running = await start({"gateway": {"sse_keepalive_seconds": 0.1}})
    answer = await running.stream(delay=0.4, status=400)
    assert answer.status == 200
    assert json.loads(answer.events[-1].removeprefix("data: "))["error"]["code"] == "bad_request"
    line = (await running.lines())[0]
    assert (line["status"], line["outcome"], line["error"]) == (200, "client_error", "bad_request")


async def test_a_stream_that_fails_soon_keeps_its_true_status(start: Start) -> None:
    running = await start({"gateway": {"sse_keepalive_seconds": 5.0}})
    assert (await running.stream(delay=0.2, status=400)).status == 400


async def test_anthropic_routes_fail_in_their_own_shape(running: Running) -> None:
    refused = await running.ask("POST", "/v1/messages", body=chat(), key=None)
    assert (refused.status, refused.error["type"]) == (401, "authentication_error")
    assert refused.json()["type"] == "error"
    cut = await running.ask("POST", "/v1/messages", body=chat(stream=True, die_after=1))
    assert cut.events[-1].startswith("event: error\ndata: ")
    value = json.loads(cut.events[-1].split("data: ", 1)[1])
    assert (value["type"], value["error"]["type"]) == ("error", "api_error")


async def test_a_stream_begins_with_its_first_event_and_not_with_the_engines_head(start: Start) -> None:
    """llama-server sends its head before it reads the prompt, which may take minutes."""
    running = await start({"gateway": {"sse_keepalive_seconds": 0.15}})
    answer = await running.stream(tokens=2, prefill=0.6, ping=True)
    comments = [event for event in answer.events if event.startswith(":")]
    assert answer.events[: len(comments)] == comments
    assert comments[:2] == [": keep-alive"] * 2
    assert ":" in comments  # the engine's own
    assert len(answer.events) == len(comments) + 4
    line = (await running.lines())[0]
    assert line["ttft_ms"] > 550
    assert line["tokens_out"] == 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_an_engine_that_dies_while_it_reads_the_prompt_leads_to_a_true_status(
    running: Running, path: str
) -> None:
    answer = await running.ask("POST", path, body=chat(stream=True, prefill=0.05, die_after=0))
    assert answer.status == 502
    assert len(running.engine.asked) == 1  # whatever ended it may be in the request


async def test_an_anthropic_stream_without_its_first_event_is_mended(running: Running) -> None:
    answer = await running.ask("POST", "/v1/messages", body=chat(stream=True, tokens=2, no_start=True))
    names = [event.split("\n")[0] for event in answer.events]
    assert names[:2] == ["event: message_start", "event: content_block_start"]
    assert names[-1] == "event: message_stop"
    whole = await running.ask("POST", "/v1/messages", body=chat(stream=True, tokens=2))
    assert [event.split("\n")[0] for event in whole.events] == names
    assert whole.headers["request-id"] == whole.headers["x-request-id"]
    lines = await running.lines(2)
    assert [(line["tokens_in"], line["tokens_out"]) for line in lines] == [(PROMPT_TOKENS, 2)] * 2
    assert "request-id" not in (await running.stream()).headers


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("hang_after", [-1, 1])
async def test_a_client_that_leaves_frees_the_engine_at_once(running: Running, streams: bool, hang_after: int) -> None:
    knobs = {"hang_after": hang_after} if streams else {"hang_after": -1}
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(stream=streams, **knobs)))
    await running.until(lambda: bool(running.engine.asked))
    if streams and hang_after > 0:
        await reader.readuntil(b"\n\n")
    writer.close()
    await running.until(lambda: running.engine.asked[0].dropped, 1.0)
    line = (await running.lines())[0]
    assert line["outcome"] == "client_gone"
    assert line["status"] == (200 if streams and hang_after > 0 else None)
    assert running.gateway.backends.first.admission.active == 0
    assert running.gateway.pipeline.in_flight == 0


async def test_a_client_that_leaves_the_queue_never_reaches_the_engine(start: Start) -> None:
    running = await start({"limits": {"max_in_flight": 1}})
    holder = asyncio.create_task(running.stream(hang_after=1))
    await running.until(lambda: running.gateway.backends.first.admission.active == 1)
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat()))
    await running.until(lambda: running.gateway.backends.first.admission.waiting == 1)
    writer.close()
    await running.until(lambda: running.gateway.backends.first.admission.waiting == 0, 1.0)
    assert len(running.engine.asked) == 1
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    await running.until(lambda: running.gateway.backends.first.admission.active == 0, 1.0)


async def test_a_slow_reader_does_not_grow_memory_and_gets_everything(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**24)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(stream=True, tokens=4000, event_bytes=4000)))
    await asyncio.sleep(0.5)
    assert not running.engine.asked[0].finished  # 16 MB do not fit into what may be buffered on the way
    connection = next(iter(running.gateway.http_server.connections))
    assert connection._transport is not None
    assert connection._transport.get_write_buffer_size() < 4_000_000
    assert (await running.ask("GET", "/ping")).status == 200
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    answer = await read_answer(reader)
    assert len(answer.events) == 4002
    writer.close()


async def test_a_reader_that_never_reads_is_cut_off(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"idle_seconds": 0.5}}})
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(stream=True, tokens=4000, event_bytes=4000)))
    line = (await running.lines())[0]
    assert (line["outcome"], line["error"]) == ("timeout", "client_stalled")
    assert running.gateway.backends.first.admission.active == 0
    writer.close()


class Sink:
    """Writes down what a client would get."""

    on_writable: Callable[[], None] | None = None

    def __init__(self, *, accepts_chunked: bool) -> None:
        self.accepts_chunked = accepts_chunked
        self.written: list[bytes] = []

    def open(self, status: int, lines: str, first: bytes, *, framed: bool) -> bool:
        assert status == 200
        self.written.append(chunk(first) if self.accepts_chunked and not framed else first)
        return True

    def write(self, data: bytes) -> bool:
        self.written.append(chunk(data) if self.accepts_chunked else data)
        return True

    def write_framed(self, data: bytes) -> bool:
        self.written.append(data)
        return True

    def send(self, status: int, lines: str, body: bytes) -> None:
        raise AssertionError("it is a stream")

    def end(self, *, framed: bool = False) -> None:
        self.written.append(b"the end")

    def abort(self) -> None:
        raise AssertionError("nothing is wrong with this client")

    def close_after_response(self) -> None:
        raise AssertionError("nothing is wrong with this client's connection")


class Upstream:
    """A connection to the engine that only counts how often it is aborted."""

    paused = False
    aborted = 0

    def abort(self) -> None:
        self.aborted += 1


class Relayed:
    """One stream's relay by itself, on a clock of its own."""

    LIMITS = ResponseTimeouts(first_byte_seconds=300.0, idle_seconds=120.0, total_seconds=1800.0)

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, raw: bool, path: str = "/v1/chat/completions") -> None:
        self.now = 1000.0
        monkeypatch.setattr("llama_gguf.gateway.relay.response_relay.time", self)
        self.sink = Sink(accepts_chunked=raw)
        self.exchange = Exchange(Request(RequestHead("POST", path, {})), self.sink, "id", self.now)
        self.exchange.stream = True
        self.exchange.route = RouteTable(("chat", "messages"), metrics_need_key=False, metrics_enabled=False).find(
            "POST", path
        )[0]
        self.connection = Upstream()
        self.relay = ResponseRelay(self.exchange, cast("EngineConnection", self.connection), self.LIMITS)
        head = ResponseHead(200, [(b"content-type", b"text/event-stream")], None, keep_alive=True)
        self.relay.on_head(head, b"", complete=False)

    def monotonic(self) -> float:
        return self.now

    def receive(self, event: bytes, *, piece: int | None = None) -> None:
        """Receive an event, by default in one piece."""
        data = chunk(event) if self.relay.raw else event
        piece = piece or len(data)
        for at in range(0, len(data), piece):
            self.relay.on_data(data[at : at + piece], complete=False)

    def wait(self, seconds: float) -> str:
        """Let time pass, and return what has failed, if anything."""
        self.now += seconds
        self.relay.check(self.now)
        return str(self.relay.failure or "")


PING, EVENT = b":\n\n", b'data: {"choices":[]}\n\n'


@pytest.mark.parametrize("piece", [None, 1])
@pytest.mark.parametrize("raw", [False, True])
def test_a_ping_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch, raw: bool, piece: int | None) -> None:
    relayed = Relayed(monkeypatch, raw=raw)
    for _ in range(4):
        assert relayed.wait(299) == ""
        relayed.receive(PING, piece=piece)
        assert relayed.exchange.first_byte == 0.0, "a ping is no part of the answer"
    relayed.receive(EVENT, piece=piece)
    assert relayed.exchange.first_byte == relayed.now
    for _ in range(3):
        assert relayed.wait(119) == ""
        relayed.receive(PING, piece=piece)
    assert relayed.wait(121) == "timeout: gateway.timeouts.idle_seconds (120 s)"
    assert relayed.connection.aborted == 1
    sent = b"".join(relayed.sink.written)
    assert (sent.count(PING), sent.count(EVENT)) == (7, 1)
    assert relayed.sink.written.index(chunk(PING) if raw else PING) == 0


@pytest.mark.parametrize("raw", [False, True])
def test_pings_do_not_prolong_the_total(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    relayed = Relayed(monkeypatch, raw=raw)
    for _ in range(18):
        assert relayed.wait(100) == ""
        relayed.receive(PING)
    assert relayed.wait(1) == "timeout: gateway.timeouts.total_seconds (1800 s)"


@pytest.mark.parametrize("raw", [False, True])
def test_silence_after_a_ping_ends_a_stream(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    relayed = Relayed(monkeypatch, raw=raw)
    relayed.receive(PING)
    relayed.receive(EVENT[:-1])
    assert relayed.wait(300) == ""
    assert relayed.wait(1) == "timeout: gateway.timeouts.first_byte_seconds (300 s)"
    assert EVENT[:-1] not in b"".join(relayed.sink.written)


def test_a_client_that_stopped_reading_is_told_from_an_engine_that_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    relayed = Relayed(monkeypatch, raw=True)
    relayed.receive(EVENT)
    relayed.connection.paused = True
    assert relayed.wait(121) == "stalled: gateway.timeouts.idle_seconds (120 s)"


@pytest.mark.parametrize("raw", [False, True])
def test_a_ping_and_the_first_event_may_come_together(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    """Then a missing message_start is noticed all the same."""
    relayed = Relayed(monkeypatch, raw=raw, path="/v1/messages")
    event = b"event: content_block_start\ndata: {}\n\n"
    data = b"".join(chunk(part) if raw else part for part in (PING, PING, event))
    relayed.relay.on_data(data, complete=False)
    sent = b"".join(relayed.sink.written)
    assert sent.startswith((chunk(PING) if raw else PING) * 2)
    assert sent.index(b"event: message_start") < sent.index(event)
    assert relayed.relay.events == 1


@pytest.mark.parametrize("raw", [False, True])
def test_a_stream_of_nothing_is_an_empty_stream(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    relayed = Relayed(monkeypatch, raw=raw)
    relayed.relay.on_data(b"0\r\n\r\n" if raw else b"", complete=True)
    assert relayed.relay.is_set
    assert relayed.exchange.started
    assert relayed.sink.written[-1] == b"the end"


CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"m","delta":"x"}\n\n'


@pytest.mark.parametrize("piece", [None, *range(1, 40)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_stream_is_translated_event_by_event_however_it_is_split(
    monkeypatch: pytest.MonkeyPatch, chunked: bool, piece: int | None
) -> None:
    relayed = Relayed(monkeypatch, raw=False)
    relayed.sink.accepts_chunked = chunked
    relayed.exchange.translation = ResponsesTranslation({}, model="m", request_id="r", created_at=1, context=0)
    relayed.receive(PING + CREATED + DELTA + PING + DELTA, piece=piece)
    written = b"".join(relayed.sink.written)
    events = [json.loads(line[6:]) for line in written.splitlines() if line.startswith(b"data: ")]
    assert [event["sequence_number"] for event in events] == [0, 1, 2]
    assert [event.get("delta") for event in events] == [None, "x", "x"]
    assert written.count(PING) == 2


def test_a_translated_stream_is_taken_from_the_engine_without_its_framing(monkeypatch: pytest.MonkeyPatch) -> None:
    relayed = Relayed(monkeypatch, raw=True)
    assert relayed.relay.raw
    relayed.exchange.translation = ResponsesTranslation({}, model="m", request_id="r", created_at=1, context=0)
    assert not ResponseRelay(relayed.exchange, cast("EngineConnection", relayed.connection), relayed.LIMITS).raw
