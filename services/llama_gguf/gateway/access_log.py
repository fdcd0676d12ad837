"""One line for each request: who, what, how it ended, how long and how many tokens; never prompts or keys.

Lines are made on the event loop and written by a thread, so that a slow disk or a full pipe stops no request. Should
writing fall a minute behind, lines are dropped and counted rather than kept without bound.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Literal

import orjson

from llama_gguf.logs import clean, fields

from .exchange import Exchange

FLUSH_SECONDS = 0.1
MAX_BATCHES = 600  # a minute of lines that nobody reads

_log = logging.getLogger(__name__)


def json_line(exchange: Exchange, now: float, timestamp: str) -> bytes:
    """Return the facts about one request as a line of JSON. `now` is monotonic; milliseconds count from arrival.

    Written out by hand, because it is a tenth of what a plain request costs. Only what a client or an operator may
    have put quotes or control characters into goes through a JSON encoder; the rest is numbers and names of ours.
    """
    key, tokens, first = exchange.key, exchange.tokens, exchange.first_byte
    counts = (
        f'"tokens_in":{tokens.prompt},"tokens_cached":{tokens.cached},"tokens_out":{tokens.completion},'
        f'"finish":{_name(tokens.finish_reason)}'
        if tokens is not None
        else '"tokens_in":null,"tokens_cached":null,"tokens_out":null,"finish":null'
    )
    line = (
        f'{{"ts":"{timestamp}","level":"info","program":"gateway","event":"request",'
        f'"request_id":"{exchange.request_id}",'
        f'"key":{_name(key.id) if key is not None else "null"},{_call(exchange)},'
        f'"status":{exchange.status or "null"},"outcome":"{exchange.outcome}","error":{_name(exchange.error_code)},'
        f'"model":{_quoted(exchange.model)},"stream":{"true" if exchange.stream else "false"},'
        f'"queue_ms":{exchange.queued_seconds * 1000:.1f},'
        f'"ttft_ms":{f"{(first - exchange.arrived) * 1000:.1f}" if first else "null"},'
        f'"total_ms":{(now - exchange.arrived) * 1000:.1f},"bytes":{exchange.bytes_sent},{counts},'
        f'"peer":{_name(exchange.request.peer)}}}\n'
    )
    return line.encode("utf-8", "replace")


def _call(exchange: Exchange) -> str:
    route = exchange.route
    if route is not None:
        return f'"method":"{exchange.request.method}","route":"{route.template}"'
    request = exchange.request
    return f'"method":{_quoted(request.method[:16])},"route":{_quoted(request.path[:256])}'


def _name(value: str) -> str:
    """Return one of our own names (or a validated one) in quotes, null where it is empty."""
    return f'"{value}"' if value else "null"


@functools.lru_cache(maxsize=256)
def _quoted(value: str) -> str:
    return orjson.dumps(value.encode("utf-8", "replace").decode()).decode() if value else "null"


def text_line(exchange: Exchange, now: float, timestamp: str) -> bytes:
    """Return the same facts as `ts | INFO | gateway | request | k=v k=v`, like every other log line in text."""
    record: dict[str, object] = orjson.loads(json_line(exchange, now, timestamp))
    values = [
        f"{name}={_text(value)}" for name, value in record.items() if name not in ("ts", "level", "program", "event")
    ]
    return f"{timestamp} | INFO | gateway | request | {' '.join(values)}\n".encode("utf-8", "replace")


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value)).replace(" ", "_").replace("|", "_")


class AccessLog:
    """Writes access lines to a stream, ten times a second, from a thread of its own. Belongs to one event loop."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        format: Literal["text", "json"],  # noqa: A002 - named like the setting
        clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._render = json_line if format == "json" else text_line
        self._clock = clock
        self._lines: list[bytes] = []
        self._second = -1
        self._second_text = ""
        self._batches: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._flush_handle: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def began(self, exchange: Exchange) -> None:
        """Nothing to note yet."""

    def ended(self, exchange: Exchange) -> None:
        """Note a request that has ended."""
        loop = asyncio.get_running_loop()
        if self._batches.qsize() > MAX_BATCHES:
            self.dropped += 1
            return
        self._lines.append(self._render(exchange, time.monotonic(), self._timestamp()))
        if self._flush_handle is None:
            self._flush_handle = loop.call_later(FLUSH_SECONDS, self._flush)

    def _timestamp(self) -> str:
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{int((now - second) * 1000):03d}Z"

    def _flush(self) -> None:
        self._flush_handle = None
        if self._lines:
            self._batches.put(b"".join(self._lines))
            self._lines.clear()

    async def stop(self) -> None:
        """Write what is left and stop. Waits at most a few seconds for a stream that takes nothing."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        self._flush()
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join, 3.0)
        if self.dropped:
            _log.warning("access lines were dropped", extra=fields(lines=self.dropped))

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._stream.write(batch)
                self._stream.flush()
            except (OSError, ValueError):  # nowhere to write to; requests go on
                self.dropped += batch.count(b"\n")
