"""The access log: one line for each request with key id, route, outcome, times and tokens; never prompts or keys.

Lines are formatted on the event loop and written by a thread, so that a slow disk or a full pipe blocks no request. If
writing falls a minute behind, lines are dropped and counted, so that memory is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Literal

import orjson

from llama_gguf.gateway.exchange import Exchange, RequestKind
from llama_gguf.logs import clean, fields
from llama_gguf.timestamps import utc_text

MAX_BATCHES = 1200  # one minute

_log = logging.getLogger(__name__)


def common_fields(kind: RequestKind) -> str:
    """Return the fields that all requests of a kind have in common, as part of a line of JSON.

    Only values from a client or an operator, which can contain quotes or control characters, go through a JSON encoder;
    the rest is numbers and our own names.
    """
    route, method, path, status, outcome, error, key_id, model, stream, changed = kind
    where = route.template if route is not None else path[:256]
    streams = "true" if stream else "false"
    return (
        f'"key":{_name(key_id)},"method":{_quoted(method[:16])},"route":{_quoted(where)},"status":{status or "null"},'
        f'"outcome":"{outcome}","error":{_name(error)},"model":{_quoted(model)},"stream":{streams}'
        + (f',"changed":{_quoted(changed)}' if changed else "")
    )


_LINE = (
    '{"ts":"%s","level":"info","program":"gateway","event":"request","request_id":"%s",%s,"queue_ms":%.1f,'
    '"ttft_ms":%s,"total_ms":%.1f,"bytes":%s,"tokens_in":%s,"tokens_cached":%s,"tokens_out":%s,"finish":%s,"peer":%s}\n'
)
_NO_TOKENS = ("null", "null", "null", False, "", None)


def json_line(exchange: Exchange, common: str, timestamp: str) -> str:
    """Return the line of one request as JSON. Milliseconds are measured from its arrival.

    Formatted by hand, with one template, because it takes a tenth of the CPU of a plain request.
    """
    tokens, first, arrived, peer = exchange.tokens, exchange.first_byte, exchange.arrived, exchange.request.peer
    prompt, cached, completion, _, finish, _ = tokens if tokens is not None else _NO_TOKENS
    return _LINE % (
        timestamp,
        exchange.request_id,
        common,
        exchange.queued_seconds * 1000.0,
        "%.1f" % ((first - arrived) * 1000.0) if first else "null",
        (exchange.ended - arrived) * 1000.0,
        exchange.bytes_sent,
        prompt,
        cached,
        completion,
        _name(finish),
        _name(peer),
    )


def _name(value: str) -> str:
    """Return one of our own names (or a validated one) in quotes, null if it is empty."""
    return f'"{value}"' if value else "null"


def _quoted(value: str) -> str:
    return orjson.dumps(value.encode("utf-8", "replace").decode()).decode() if value else "null"


def text_line(exchange: Exchange, common: str, timestamp: str) -> str:
    """Return the line of one request as `ts | INFO | gateway | request | k=v k=v`, like other log lines as text."""
    record: dict[str, object] = orjson.loads(json_line(exchange, common, timestamp))
    values = [
        f"{name}={_text(value)}" for name, value in record.items() if name not in ("ts", "level", "program", "event")
    ]
    return f"{timestamp} | INFO | gateway | request | {' '.join(values)}\n"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value)).replace(" ", "_").replace("|", "_")


class AccessLog:
    """Writes access log lines to a stream from its own thread. Belongs to one event loop."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        format: Literal["text", "json"],  # noqa: A002 - named like the setting
    ) -> None:
        self._stream = stream
        self._render = json_line if format == "json" else text_line
        self._second = self._millisecond = -1
        self._second_text = self._stamp = ""
        self._batches: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def write(self, requests: Mapping[RequestKind, Sequence[Exchange]]) -> None:
        """Log completed requests, grouped by kind. Never waits."""
        if self._batches.qsize() > MAX_BATCHES:
            self.dropped += sum(map(len, requests.values()))
            return
        render, stamp = self._render, self._timestamp
        to_calendar = time.time() - time.monotonic()
        lines: list[tuple[float, str]] = []
        for kind, exchanges in requests.items():
            common = common_fields(kind)
            lines += [(one.ended, render(one, common, stamp(one.ended + to_calendar))) for one in exchanges]
        lines.sort()
        self._batches.put("".join([line for _, line in lines]).encode("utf-8", "replace"))

    def _timestamp(self, moment: float) -> str:
        millisecond = int(moment * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second = millisecond // 1000
            if second != self._second:
                self._second = second
                self._second_text = utc_text(second, "seconds").removesuffix("Z")
            self._stamp = f"{self._second_text}.{millisecond % 1000:03d}Z"
        return self._stamp

    async def stop(self) -> None:
        """Write what is left and stop. Waits a few seconds at most for a stream that blocks."""
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join, 3.0)
        if self.dropped:
            _log.warning("lines of the access log were dropped", extra=fields(lines=self.dropped))

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._stream.write(batch)
                self._stream.flush()
            except (OSError, ValueError):  # the stream is closed; requests continue
                self.dropped += batch.count(b"\n")
