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
from collections.abc import Sequence
from typing import BinaryIO, Literal

import orjson

from llama_gguf.logs import clean, fields

from .exchange import Exchange

MAX_BATCHES = 1200  # a minute of lines that nobody reads

_log = logging.getLogger(__name__)


def json_line(exchange: Exchange, timestamp: str) -> bytes:
    """Return the facts about one request as a line of JSON. Milliseconds count from its arrival.

    Written out by hand, because it is a tenth of what a plain request costs. Only what a client or an operator may
    have put quotes or control characters into goes through a JSON encoder; the rest is numbers and names of ours.
    """
    key, tokens, first, request = exchange.key, exchange.tokens, exchange.first_byte, exchange.request
    arrived, route, error = exchange.arrived, exchange.route, exchange.error_code
    if route is not None:
        call = f'"method":"{request.method}","route":"{route.template}"'
    else:
        call = f'"method":{_quoted(request.method[:16])},"route":{_quoted(request.path[:256])}'
    if tokens is not None:
        prompt, cached, completion, _, finish, _ = tokens
        counts = f'"tokens_in":{prompt},"tokens_cached":{cached},"tokens_out":{completion},"finish":{_name(finish)}'
    else:
        counts = '"tokens_in":null,"tokens_cached":null,"tokens_out":null,"finish":null'
    ttft = _milliseconds(first - arrived) if first else "null"
    return (
        f'{{"ts":"{timestamp}","level":"info","program":"gateway","event":"request",'
        f'"request_id":"{exchange.request_id}","key":{_name(key.id) if key is not None else "null"},{call},'
        f'"status":{exchange.status or "null"},"outcome":"{exchange.outcome}",'
        f'"error":{_name(error)},"model":{_quoted(exchange.model)},'
        f'"stream":{"true" if exchange.stream else "false"},'
        f'"queue_ms":{_milliseconds(exchange.queued_seconds)},"ttft_ms":{ttft},'
        f'"total_ms":{_milliseconds(exchange.ended - arrived)},"bytes":{exchange.bytes_sent},{counts},'
        f'"peer":{_name(request.peer)}}}\n'
    ).encode("utf-8", "replace")


def _milliseconds(seconds: float) -> str:
    """Return a time with one decimal. Formatting whole numbers takes a third of the time of formatting a float."""
    tenths = int(seconds * 10_000)
    return f"{tenths // 10}.{tenths % 10}"


def _name(value: str) -> str:
    """Return one of our own names (or a validated one) in quotes, null where it is empty."""
    return f'"{value}"' if value else "null"


@functools.lru_cache(maxsize=256)
def _quoted(value: str) -> str:
    return orjson.dumps(value.encode("utf-8", "replace").decode()).decode() if value else "null"


def text_line(exchange: Exchange, timestamp: str) -> bytes:
    """Return the same facts as `ts | INFO | gateway | request | k=v k=v`, like every other log line in text."""
    record: dict[str, object] = orjson.loads(json_line(exchange, timestamp))
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
    """Writes access lines to a stream from a thread of its own. Belongs to one event loop."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        format: Literal["text", "json"],  # noqa: A002 - named like the setting
    ) -> None:
        self._stream = stream
        self._render = json_line if format == "json" else text_line
        self._second = -1
        self._second_text = ""
        self._batches: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def write(self, exchanges: Sequence[Exchange]) -> None:
        """Note requests that have ended. Never waits."""
        if self._batches.qsize() > MAX_BATCHES:
            self.dropped += len(exchanges)
            return
        render, stamp = self._render, self._timestamp
        self._batches.put(b"".join([render(exchange, stamp(exchange.ended_at)) for exchange in exchanges]))

    def _timestamp(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            self._second = second
            self._second_text = dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{int((moment - second) * 1000):03d}Z"

    async def stop(self) -> None:
        """Write what is left and stop. Waits at most a few seconds for a stream that takes nothing."""
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
