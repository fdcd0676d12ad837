"""The HTTP/1.1 server: one asyncio Protocol per client connection, which reads requests and passes them to a Handler.

llhttp parses (`request_parser`) and `response_writer` writes; this module owns a connection's state, its timeouts and
pipelining. There is no framework below: aiohttp's server costs 25 us a request, 0.2 s at the start and, on the same
llhttp, leaves a handler waiting when a chunked body is malformed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Generic, Literal, cast

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.chunked import ChunkedBody
from llama_gguf.gateway.http1.half_closed import ResetWatch, next_probe
from llama_gguf.gateway.http1.handler import AdmittedT, ExchangeT, Handler
from llama_gguf.gateway.http1.header_rules import HttpLimits
from llama_gguf.gateway.http1.inline_task import InlineTask
from llama_gguf.gateway.http1.lingering import Lingering
from llama_gguf.gateway.http1.message import Request, RequestHead
from llama_gguf.gateway.http1.request_parser import TLS_HANDSHAKE, Head, check_unfinished, method_and_target, parse_head
from llama_gguf.gateway.http1.response_head import CONTINUE, ResponseHeadWriter
from llama_gguf.gateway.http1.response_writer import HIGH_WATER_BYTES, LOW_WATER_BYTES, ResponseWriter
from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.logs import fields
from llama_gguf.open_connections import ConnectionLimits, Idle, host_of, peer_of, to_give_up

_log = logging.getLogger(__name__)

MAX_PIPELINED_BYTES = 65_536
IDLE_LIMITS = ConnectionLimits(in_all=1024, per_peer=512)
CLOSE_SECONDS = 2.0
TLS_NOTE_SECONDS = 60.0
STALL_SECONDS = 30.0
CHECK_SECONDS = 0.25

State = Literal["head", "body", "serving", "lingering", "closed"]


class HttpServer(Generic[ExchangeT, AdmittedT]):
    """Creates the protocols of new connections and enforces their timeouts. Belongs to one event loop.

    `extra_singleton` names one more header that must not be repeated. `idle_limits`: connections without a request;
    when there are more, some are given up (`open_connections`).
    """

    def __init__(
        self,
        handler: Handler[ExchangeT, AdmittedT],
        limits: HttpLimits,
        write_batch: WriteBatch,
        *,
        extra_singleton: bytes | None = None,
        idle_limits: ConnectionLimits = IDLE_LIMITS,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.write_batch = write_batch
        self.extra_singleton = extra_singleton
        self.heads = ResponseHeadWriter()
        self.draining = False
        self.connections: set[ClientConnection[ExchangeT, AdmittedT]] = set()
        self.resets = ResetWatch()
        self._idle_limits = idle_limits
        self._per_peer: Counter[str] = Counter()
        self._tls_noted = float("-inf")
        self._checked = 0.0
        self._closed = asyncio.Event()

    def __call__(self) -> ClientConnection[ExchangeT, AdmittedT]:
        return ClientConnection(self)

    def check(self, now: float) -> None:
        """Act on connections that are too slow; called by DeadlineChecker."""
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            for connection in tuple(self.connections):
                connection.check(now)

    def drain(self) -> None:
        """Close idle connections now and the others after the current response."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.close_if_idle()

    async def wait_closed(self) -> None:
        """Wait until every connection is closed, its last response sent."""
        while self.connections:
            self._closed.clear()
            await self._closed.wait()

    def add(self, connection: ClientConnection[ExchangeT, AdmittedT]) -> None:
        """Add a new connection; if there are too many now that ask for nothing, give some up."""
        self.connections.add(connection)
        self._per_peer[connection.peer_key] += 1
        limits = self._idle_limits
        if len(self.connections) > limits.in_all or self._per_peer[connection.peer_key] > limits.per_peer:
            idle = (Idle(other, other.peer_key, other.since) for other in self.connections if other.is_idle)
            for other in to_give_up(idle, limits):
                other.give_up()

    def discard(self, connection: ClientConnection[ExchangeT, AdmittedT]) -> None:
        """Remove a closed connection."""
        self.connections.discard(connection)
        self._per_peer[connection.peer_key] -= 1
        if not self._per_peer[connection.peer_key]:
            del self._per_peer[connection.peer_key]
        self._closed.set()

    def note_tls(self, peer: str) -> None:
        """Log, at most once a minute, that a client speaks TLS: its own error does not say what is wrong."""
        now = time.monotonic()
        if now - self._tls_noted >= TLS_NOTE_SECONDS:
            self._tls_noted = now
            _log.warning(
                "a client speaks TLS to the plain HTTP port: use http://, or put a TLS proxy in front",
                extra=fields(peer=peer),
            )

    def abort_all(self) -> None:
        """Abort every connection."""
        self.resets.close()
        for connection in tuple(self.connections):
            connection.abort()


class ClientConnection(ResponseWriter, Generic[ExchangeT, AdmittedT]):
    """The reading half of one client connection: reads its requests one after the other."""

    __slots__ = (
        "_body",
        "_buffer",
        "_chunked",
        "_deadline",
        "_ended",
        "_head",
        "_head_bytes",
        "_lingering",
        "_peer",
        "_pending",
        "_remaining",
        "_server",
        "_state",
        "_task",
        "_unsent",
        "peer_key",
        "since",
    )

    def __init__(self, server: HttpServer[ExchangeT, AdmittedT]) -> None:
        super().__init__(server.heads, server.write_batch)
        self._server = server
        self._state: State = "head"
        self._buffer = b""  # an incomplete head, or what followed the request that is being served
        self._body: list[bytes] = []
        self._remaining = 0  # bytes of the body that have not arrived
        self._chunked: ChunkedBody | None = None
        self._head: Head | None = None  # of the last request; reused if the client sends the same bytes again
        self._head_bytes = b""
        self._pending: tuple[Request, ExchangeT, AdmittedT] | None = None  # the request whose body is arriving
        self._task: InlineTask | None = None
        self._peer = ""
        self._deadline = 0.0
        self._unsent = 0  # bytes that were still to be sent at the last check
        self._lingering: Lingering | None = None
        self._ended = False  # the client has ended its half, and waits for its response or is gone
        self.peer_key = ""
        self.since = 0.0  # when the connection became idle, or the client has ended its half

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self._peer = host_of(transport.get_extra_info("peername"))
        self.peer_key = peer_of(self._peer)
        self.since = time.monotonic()
        self._deadline = self.since + self._server.limits.header_seconds
        self._server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._server.discard(self)
        self._state = "closed"
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        elif self._pending is not None:
            self._server.handler.disconnected(self._pending[1])
        # The rest of the body will not come; what there is of it would stay until the garbage is collected.
        self._pending = self._chunked = None
        self._body, self._buffer = [], b""

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == "head":
            if self._buffer:
                data = self._buffer + data
            self._receive_head(data)
        elif state == "body":
            self._receive_body(data)
        elif state == "serving":
            self._buffer += data
            if len(self._buffer) > MAX_PIPELINED_BYTES and self._transport is not None:
                self._transport.pause_reading()
        elif state == "lingering":
            self._throw_away(len(data))

    def eof_received(self) -> bool:
        """Return whether to go on: the client might have ended only its half (`half_closed`).

        A client of HTTP/1.0 does not know interim responses, so it cannot be asked and counts as gone. So does one that
        ends its half in the middle of a response: it has had all the time to do so before.
        """
        if self._state == "head" and self._buffer:
            self._ended = True
            self._read_pipelined()
        if self._state != "serving" or self._transport is None or self._begun or not self.accepts_chunked:
            return False
        self._ended = True
        self.since = time.monotonic()
        self._server.resets.add(self._transport.get_extra_info("socket").fileno(), self.abort)
        self._probe(self.since)
        return True

    def _probe(self, now: float) -> None:
        self._deadline = next_probe(self.since, now)
        if not self._begun and self._transport is not None:
            self._write_batch.write(self._transport, CONTINUE)

    def _unwatch(self) -> None:
        if self._ended and self._transport is not None:
            self._server.resets.discard(self._transport.get_extra_info("socket").fileno())

    def check(self, now: float) -> None:
        """Act if the client is too slow."""
        if now < self._deadline:
            return
        if self._state == "serving":
            if self._ended:
                self._probe(now)
            return
        if self._is_sending(now):
            return
        if self._state == "closed":
            self.abort()
        elif self._state == "lingering" or (self._state == "head" and not self._buffer):
            self._close()
        elif self._pending is not None:
            self._refuse_and_close(
                self._pending[1], GatewayError("request_timeout", "The request body took too long to arrive.")
            )
        else:
            self._refuse(
                GatewayError("request_timeout", "The request's headers took too long to arrive."), self._buffer
            )

    def _is_sending(self, now: float) -> bool:
        """Return whether a response is still being sent; abort if the client has stopped reading it."""
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        before, self._unsent = self._unsent, unsent
        if not unsent:
            return False
        if 0 < before <= unsent:
            self.abort()
        self._deadline = now + STALL_SECONDS
        return True

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress: one can be incomplete, or be refused and its body thrown away."""
        return self._state in ("head", "lingering")

    def give_up(self) -> None:
        """Close an idle connection now."""
        if self._state == "head" and not self._buffer:
            self._close()
        else:
            self.abort()

    def close_if_idle(self) -> None:
        """Close now if no request is in progress; else after the current response."""
        self._keep_alive = False
        if self._state == "head" and not self._buffer:
            self._close()

    def _receive_head(self, data: bytes) -> None:
        if self._head is not None and data.startswith(self._head_bytes):
            self._buffer = b""
            self._begin(self._head, self._head_bytes, data[len(self._head_bytes) :])
            return
        end = data.find(b"\r\n\r\n")
        if end <= 0:
            data = data.lstrip(b"\r\n")  # RFC 9112, 2.2: ignore empty lines before a request
            end = data.find(b"\r\n\r\n")
        server = self._server
        try:
            if end < 0:
                if data and not self._buffer:
                    self._deadline = time.monotonic() + server.limits.header_seconds
                self._buffer = raw = data
                check_unfinished(data, server.limits)
                if self._ended:
                    self._close()
                return
            raw = data[: end + 4]
            head = parse_head(raw, server.limits, server.extra_singleton)
            self._head, self._head_bytes = head, raw
        except GatewayError as error:
            self._head = None
            self._refuse(error, raw)
            return
        self._buffer = b""
        self._begin(head, raw, data[end + 4 :])

    def _begin(self, head: Head, raw: bytes, rest: bytes) -> None:
        """Pass a request to the handler before its body is read."""
        server = self._server
        self.accepts_chunked = head.accepts_chunked
        self._head_only = head.method == "HEAD"
        length = head.length
        complete = length is not None and len(rest) >= length
        # If the request is refused before its body has arrived, the connection is closed after the response.
        self._keep_alive = complete and head.keep_alive and not server.draining
        request = Request(head, peer=self._peer)
        exchange = server.handler.begin(request, self)
        self._state = "serving"
        self._begun = False
        admitted = server.handler.admit(exchange)
        if admitted is None:
            if complete:
                self._buffer = rest[length:]
                self._next()
            else:
                self._linger(None if length is None else length - len(rest))
            return
        if complete:
            request.body, self._buffer = (rest, b"") if len(rest) == length else (rest[:length], rest[length:])
            self._serve(exchange, admitted)
            return
        self._keep_alive = head.keep_alive and not server.draining
        self._state = "body"
        self._pending = request, exchange, admitted
        self._deadline = time.monotonic() + server.limits.body_seconds
        if self._ended:
            self._close()
            return
        if head.expects_continue and not rest and self._transport is not None:
            self._write_batch.write(self._transport, CONTINUE)
        if length is None:
            self._chunked = ChunkedBody(server.limits.max_body_bytes)
        else:
            self._body = []
            self._remaining = length
        if rest:
            self._receive_body(rest)

    def _receive_body(self, data: bytes) -> None:
        if self._chunked is not None:
            self._receive_chunks(self._chunked, data)
            return
        remaining = self._remaining
        if len(data) > remaining:
            self._buffer = data[remaining:]
            data = data[:remaining]
        self._body.append(data)
        self._remaining = remaining - len(data)
        if not self._remaining:
            body = b"".join(self._body)
            self._body = []
            self._body_complete(body)

    def _receive_chunks(self, chunked: ChunkedBody, data: bytes) -> None:
        try:
            complete = chunked.feed(data)
        except GatewayError as error:
            if self._pending is not None:
                self._refuse_and_close(self._pending[1], error)
            return
        if complete:
            self._chunked = None
            self._keep_alive = self._keep_alive and not chunked.excess
            self._body_complete(chunked.body)

    def _body_complete(self, body: bytes) -> None:
        if self._pending is not None:
            request, exchange, admitted = self._pending
            self._pending = None
            request.body = body
            self._serve(exchange, admitted)

    def _serve(self, exchange: ExchangeT, admitted: AdmittedT) -> None:
        self._state = "serving"
        if self._ended:  # and this is one of several requests that it has sent before
            self.since = time.monotonic()
            self._probe(self.since)
        self._task = InlineTask(self._server.handler.serve(exchange, admitted), self._on_served)
        self._task.step()

    def _on_served(self) -> None:
        self._task = None
        self.on_writable = None
        self._next()

    def _next(self) -> None:
        """Read the next request, or close."""
        if self._state != "serving" or self._transport is None:
            return
        if not self._keep_alive or (self._ended and not self._buffer):
            self._close()
            return
        self._state = "head"
        self.since = time.monotonic()
        self._deadline = self.since + self._server.limits.keepalive_seconds
        if self._buffer:
            self._transport.resume_reading()
            asyncio.get_running_loop().call_soon(self._read_pipelined)

    def _read_pipelined(self) -> None:
        if self._state == "head" and self._buffer:
            data, self._buffer = self._buffer, b""
            self._receive_head(data)

    def _refuse(self, error: GatewayError, head: bytes) -> None:
        """Respond to a request whose head is invalid."""
        request = Request(RequestHead(*method_and_target(head), {}), peer=self._peer)
        self._head_only = False
        if head.startswith(TLS_HANDSHAKE):
            self._server.note_tls(self._peer)
        self._refuse_and_close(self._server.handler.begin(request, self), error)

    def _refuse_and_close(self, exchange: ExchangeT, error: GatewayError) -> None:
        """Respond with an error and close, but let the client read it before the connection is reset."""
        remaining = self._remaining if self._pending is not None and self._chunked is None else None
        self._pending = None
        self._keep_alive = False
        self._buffer = b""
        self._body = []
        self._chunked = None
        self._state = "serving"
        self._server.handler.refuse(exchange, error)
        self._linger(remaining)

    def _linger(self, remaining: int | None) -> None:
        """Close the write side and let the client finish sending: a reset would destroy the unread response."""
        if self._transport is None:
            return
        if self._ended:
            self._close()
            return
        self._state = "lingering"
        self.since = time.monotonic()
        self._lingering = Lingering(remaining, self.since)
        self._deadline = self._lingering.deadline
        self._write_batch.flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _throw_away(self, size: int) -> None:
        lingering = self._lingering
        if lingering is None:
            return
        if lingering.receive(size, time.monotonic()):
            self._deadline = lingering.deadline
        elif lingering.complete:
            self._close()
        else:
            self.abort()

    def _close(self) -> None:
        self._state = "closed"
        self._deadline = time.monotonic() + CLOSE_SECONDS
        if self._transport is not None:
            self._write_batch.flush()
            self._transport.close()
