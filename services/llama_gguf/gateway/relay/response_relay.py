"""Relays one response from the engine to the client: a stream event by event, any other response when complete.

A non-streamed response is collected first, so that an engine that crashes in the middle of it still leads to an error
status. A stream starts for the client with its first event, not with the engine's head (which llama-server sends before
it processes the prompt), so until then errors have their own status. Only complete events of a stream are passed on, so
that after any failure the client's stream is between two events and an error event is well-formed. While the client
is slower than the engine, reading from the engine is paused.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.inline_task import Completion
from llama_gguf.gateway.relay.sse import comments_length, message_start
from llama_gguf.gateway.tokens.counts import Tokens, read_tokens
from llama_gguf.gateway.tokens.observer import EVENT_END, EVENT_END_FRAMED, ManyObserver, Observer
from llama_gguf.gateway.translate.translation import translate_events
from llama_gguf.gateway.upstream.client import EngineConnection
from llama_gguf.gateway.upstream.response_parser import EngineFailure, FailureReason, ResponseHead, timeout_detail

MAX_HELD_BYTES = 1_048_576
"""Maximum size of an incomplete event that is held back; a longer one is passed on in parts."""
_HEAD_BYTES = 2048
_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ResponseTimeouts:
    """Maximum waits for the engine, in seconds, as in `gateway.timeouts`.

    All but `total_seconds` are for streams: until a response that is not streamed is complete, the engine is silent.
    """

    first_byte_seconds: float
    idle_seconds: float
    total_seconds: float


class ResponseRelay(Completion):
    """Receives the engine's response to one request; set when the response has ended or failed."""

    __slots__ = (
        "_boundary",
        "_connection",
        "_exchange",
        "_forwarding",
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
        self.is_set = False  # as Completion.__init__ does, but without the call
        self.waiter = None
        self._exchange = exchange
        self._connection = connection
        self._timeouts = timeouts
        self._parts: list[bytes] = []
        self.raw = exchange.stream and exchange.translation is None and exchange.sink.accepts_chunked
        self.mode: Literal["waiting", "collect", "stream"] = "waiting"
        self.head: ResponseHead | None = None
        self.status = 0
        self.failure: EngineFailure | None = None
        self._forwarding = False  # events have arrived, and can be passed on as they are
        self.sent_at = self._last_byte = time.monotonic()

    def on_head(self, head: ResponseHead, first: bytes, *, complete: bool) -> None:
        """Decide by the head how the response is relayed."""
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
            exchange = self._exchange
            if self._forwarding and not complete and not self._held and data.endswith(EVENT_END_FRAMED):
                # The path of nearly every token of every stream.
                self._observer.observe(data)
                exchange.bytes_sent += len(data)
                if not exchange.sink.write_framed(data):
                    self._connection.pause()
                return
            if not exchange.first_byte:
                data = self._await_first_event(data, complete)
            if data or complete:
                self._observer.observe(data)
                self._forward(data, complete)
            if complete:
                exchange.end_stream(framed=self.raw)
        if complete:
            self.set()

    def _await_first_event(self, data: bytes, complete: bool) -> bytes:
        """Pass on the comments before the first event: the engine's pings. Return that event once it is complete."""
        data = self._held + data
        self._held = b""
        if comments := comments_length(data, framed=self.raw):
            self._forward(data[:comments], complete=False)
            data = data[comments:]
        if not complete and len(data) <= MAX_HELD_BYTES and self._boundary not in data:
            self._held = data
            return b""
        self._forwarding = self.raw
        exchange = self._exchange
        exchange.first_byte = self._last_byte
        if exchange.route is None or exchange.route.dialect != "anthropic":
            return data
        if start := message_start(data, exchange.model, exchange.request_id, framed=self.raw):
            self._forward(start, complete=False)
        return data

    def _forward(self, data: bytes, complete: bool) -> None:
        """Pass on complete events; hold back the rest."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not complete and not data.endswith(self._boundary):
            data = self._hold_back(data)
        exchange = self._exchange
        if exchange.translation is not None:
            data = translate_events(exchange.translation, data)
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

    def _hold_back(self, data: bytes) -> bytes:
        """Hold back what follows the last complete event; return the rest."""
        end = data.rfind(self._boundary) + len(self._boundary)
        if end < len(self._boundary):
            end = 0
        if len(data) - end > MAX_HELD_BYTES:
            self._exchange.partial_event_sent = True
            return data
        self._exchange.partial_event_sent = False
        self._held = data[end:]
        return data[:end]

    def _resume(self) -> None:
        self._last_byte = time.monotonic()
        self._connection.resume()

    def on_failure(self, failure: EngineFailure) -> None:
        """End with a failure: the connection was closed, or the response is invalid."""
        self.failure = failure
        self.set()

    def check(self, now: float) -> None:
        """End with a failure if a timeout has passed."""
        if self.is_set:
            return
        timeouts = self._timeouts
        if now - self.sent_at > timeouts.total_seconds:
            self._time_out("total_seconds", timeouts.total_seconds)
        elif not self._exchange.stream:
            return
        elif not self._exchange.first_byte:
            if now - self._last_byte > timeouts.first_byte_seconds:
                self._time_out("first_byte_seconds", timeouts.first_byte_seconds)
        elif now - self._last_byte > timeouts.idle_seconds:
            reason: FailureReason = "stalled" if self._connection.paused else "timeout"
            self._time_out("idle_seconds", timeouts.idle_seconds, reason=reason)

    def _time_out(self, setting: str, seconds: float, *, reason: FailureReason = "timeout") -> None:
        self._connection.abort()
        self.on_failure(EngineFailure(reason, timeout_detail(setting, seconds)))

    @property
    def body(self) -> bytes:
        """The body of a collected response."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    @property
    def events(self) -> int:
        """The number of events of a stream: usually one for each token."""
        return self._observer.events if self.mode == "stream" else 0

    def tokens_so_far(self) -> Tokens:
        """Return the known counts of an incomplete response: a prompt of 0 if unknown."""
        return self._observer.tokens_so_far() if self.mode == "stream" else Tokens()

    def tokens(self) -> Tokens | None:
        """Return the counts that a complete response reports, or None."""
        if self.mode == "stream":
            return self._observer.tokens()
        body = self.body
        if len(body) <= _TAIL_BYTES:
            return read_tokens(body)
        return read_tokens(body[-_TAIL_BYTES:]) or read_tokens(body[:_HEAD_BYTES])
