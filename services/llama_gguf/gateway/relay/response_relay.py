"""Carries one answer from the engine to the client: a stream as it comes, anything else whole.

A plain answer is collected first, so that an engine that dies in the middle of it still leads to a true error. A stream
begins for the client with its first event, not with the engine's head (which llama-server sends before it reads the
prompt), so until then errors keep their true status. Of a stream only whole events are let through, so that after any
failure the client's stream stands between two events and an error event is well formed. When the client cannot keep
up, reading from the engine stops.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.inline_task import Completion
from llama_gguf.gateway.relay.sse import PINGS, message_start
from llama_gguf.gateway.tokens.counts import Tokens, read_tokens
from llama_gguf.gateway.tokens.observer import EVENT_END, EVENT_END_FRAMED, ManyObserver, Observer
from llama_gguf.gateway.upstream.client import EngineConnection
from llama_gguf.gateway.upstream.response_parser import EngineFailure, FailureReason, ResponseHead

HOLD_BYTES = 1_048_576
"""Longest unfinished event that is held back; a longer one passes in pieces."""
_HEAD_BYTES = 2048
_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ResponseTimeouts:
    """Longest waits for the engine, in seconds."""

    first_byte_seconds: float
    idle_seconds: float
    total_seconds: float


class ResponseRelay(Completion):
    """Receives the engine's answer to one request; set when the answer has ended, well or not."""

    __slots__ = (
        "_boundary",
        "_connection",
        "_exchange",
        "_flowing",
        "_held",
        "_last_byte",
        "_observer",
        "_parts",
        "_timeouts",
        "failure",
        "head",
        "mode",
        "raw",
        "sent_at",
        "status",
    )

    def __init__(self, exchange: Exchange, connection: EngineConnection, timeouts: ResponseTimeouts) -> None:
        self.is_set = False  # as Signal's own __init__ does, a call less
        self.waiter = None
        self._exchange = exchange
        self._connection = connection
        self._timeouts = timeouts
        self._parts: list[bytes] = []
        self.raw = exchange.stream and exchange.sink.accepts_chunked
        self.mode: Literal["waiting", "collect", "stream"] = "waiting"
        self.head: ResponseHead | None = None
        self.status = 0
        self.failure: EngineFailure | None = None
        self._flowing = False  # events have come, and may pass as they are
        self.sent_at = self._last_byte = time.monotonic()

    def on_head(self, head: ResponseHead, first: bytes, *, complete: bool) -> None:
        """Decide by the head how the answer is carried."""
        now = time.monotonic()
        self._last_byte = now
        self.head = head
        self.status = head.status
        exchange = self._exchange
        if head.status == 200 and head.media_type == b"text/event-stream":
            self.mode = "stream"
            self._boundary = EVENT_END_FRAMED if self.raw else EVENT_END
            self._observer = (Observer if exchange.sequences == 1 else ManyObserver)(self._boundary)
            self._held = b""
            exchange.sink.on_writable = self._resume
            if first or complete:
                self.on_data(first, complete=complete)
        else:
            exchange.first_byte = now
            self.mode = "collect"
            self._parts.append(first)
            if complete:
                self.set()

    def on_data(self, data: bytes, *, complete: bool) -> None:
        """Pass on or collect the next bytes."""
        self._last_byte = time.monotonic()
        if self.mode == "collect":
            self._parts.append(data)
        else:
            self._observer.see(data)
            exchange = self._exchange
            if self._flowing and not complete and not self._held and data.endswith(EVENT_END_FRAMED):
                # Nearly every token of every stream comes by here.
                exchange.bytes_sent += len(data)
                if not exchange.sink.write_framed(data):
                    self._connection.pause()
                return
            if not exchange.first_byte:
                data = self._first(data)
            self._pass(data, complete)
            if complete:
                exchange.sink.end(framed=self.raw)
        if complete:
            self.set()

    def _first(self, data: bytes) -> bytes:
        """Note that the first event has come, unless it is but a sign of life; return what the client gets of it."""
        if data in PINGS:
            self._observer.forget()
            return data
        self._flowing = self.raw
        exchange = self._exchange
        exchange.first_byte = self._last_byte
        if exchange.route is not None and exchange.route.dialect == "anthropic":
            return message_start(data, exchange.model, exchange.request_id, framed=self.raw) + data
        return data

    def _pass(self, data: bytes, complete: bool) -> None:
        """Pass on what makes whole events; hold back the rest."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not complete and not data.endswith(self._boundary):
            data = self._hold(data)
        exchange = self._exchange
        if exchange.started:
            if not data:
                return
            exchange.bytes_sent += len(data)
            sink = exchange.sink
            writable = sink.write_framed(data) if self.raw else sink.write(data)
        else:
            writable = exchange.open_stream(data, framed=self.raw)
        if not writable and not complete:
            self._connection.pause()

    def _hold(self, data: bytes) -> bytes:
        """Keep back what stands behind the last whole event; return the rest."""
        whole = data.rfind(self._boundary) + len(self._boundary)
        if whole < len(self._boundary):
            whole = 0
        if len(data) - whole > HOLD_BYTES:
            self._exchange.broken_event = True
            return data
        self._exchange.broken_event = False
        self._held = data[whole:]
        return data[:whole]

    def _resume(self) -> None:
        self._last_byte = time.monotonic()
        self._connection.resume()

    def on_failure(self, failure: EngineFailure) -> None:
        """End: the engine's connection broke or made no sense."""
        self.failure = failure
        self.set()

    def check(self, now: float) -> None:
        """End if the engine has taken too long."""
        if self.is_set:
            return
        timeouts = self._timeouts
        if not self._exchange.first_byte and now - self.sent_at > timeouts.first_byte_seconds:
            self._give_up("first byte")
        elif now - self.sent_at > timeouts.total_seconds:
            self._give_up("total")
        elif self._exchange.first_byte and now - self._last_byte > timeouts.idle_seconds:
            self._give_up("idle", reason="stalled" if self._connection.paused else "timeout")

    def _give_up(self, stage: str, *, reason: FailureReason = "timeout") -> None:
        self._connection.abort()
        self.on_failure(EngineFailure(reason, stage))

    @property
    def silent(self) -> bool:
        """Whether the client has got nothing of this answer, and can have another in its place."""
        return self.mode == "waiting" or (self.mode == "stream" and not self._exchange.first_byte)

    @property
    def body(self) -> bytes:
        """The whole of an answer that was collected."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    @property
    def events(self) -> int:
        """What the engine has sent of a stream: an item for each token, as a rule."""
        return self._observer.events if self.mode == "stream" else 0

    def tokens_so_far(self) -> Tokens:
        """Return what can be told of an answer that was cut: a prompt of 0 where it is not known."""
        return self._observer.tokens_so_far() if self.mode == "stream" else Tokens()

    def tokens(self) -> Tokens | None:
        """Return the engine's counts of a complete answer, or None where it tells none."""
        if self.mode == "stream":
            return self._observer.tokens()
        body = self.body
        if len(body) <= _TAIL_BYTES:
            return read_tokens(body)
        return read_tokens(body[-_TAIL_BYTES:]) or read_tokens(body[:_HEAD_BYTES])
