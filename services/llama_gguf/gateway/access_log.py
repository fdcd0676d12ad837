"""One line for each request: who, what, how it ended, how long and how many tokens; never prompts or keys.

Lines are made on the event loop and written by a thread, so that a slow disk or a full pipe stops no request. Should
writing fall a minute behind, lines are dropped and counted rather than kept without bound.
"""

from __future__ import annotations

import asyncio
import datetime as dt
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


def access_record(exchange: Exchange, now: float, timestamp: str) -> dict[str, object]:
    """Return the facts about one request; `now` is the loop's clock. Milliseconds count from arrival."""
    route, tokens = exchange.route, exchange.tokens
    path = route.template if route is not None else exchange.request.path[:256]
    first = exchange.first_byte
    return {
        "ts": timestamp,
        "event": "request",
        "request_id": exchange.request_id,
        "key": exchange.key.id if exchange.key is not None else None,
        "method": exchange.request.method[:16],
        "route": path,
        "status": exchange.status or None,
        "outcome": exchange.outcome,
        "error": exchange.error_code or None,
        "model": exchange.model or None,
        "stream": exchange.stream,
        "queue_ms": _ms(exchange.queued_seconds),
        "ttft_ms": _ms(first - exchange.arrived) if first else None,
        "total_ms": _ms(now - exchange.arrived),
        "bytes": exchange.bytes_sent,
        "tokens_in": tokens.prompt if tokens is not None else None,
        "tokens_cached": tokens.cached if tokens is not None else None,
        "tokens_out": tokens.completion if tokens is not None else None,
        "finish": (tokens.finish_reason or None) if tokens is not None else None,
        "peer": exchange.request.peer or None,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def json_line(record: dict[str, object]) -> bytes:
    """Return the record as a line of JSON (which escapes control characters)."""
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def text_line(record: dict[str, object]) -> bytes:
    """Return the record as `ts | INFO | gateway | request | k=v k=v`, like every other log line in text."""
    values = [f"{name}={_text(value)}" for name, value in record.items() if name not in ("ts", "event")]
    return f"{record['ts']} | INFO | gateway | request | {' '.join(values)}\n".encode("utf-8", "replace")


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
        self._lines.append(self._render(access_record(exchange, time.monotonic(), self._timestamp())))
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
