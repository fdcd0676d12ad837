"""A tiny HTTP/1.1 server for GET and HEAD: no key, no proxying, one response per connection.

Not aiohttp, because this process serves five fixed paths and must do so within a second of the start: without it the
interpreter starts in half the time and is 13 MB smaller. Requests are capped in size, time and number. A new connection
is always taken: idle ones give way (`open_connections`), or they would make the platform's pings fail.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import cast

from llama_gguf.errors import LaunchError
from llama_gguf.health.responses import Response
from llama_gguf.open_connections import ConnectionLimits, Idle, host_of, peer_of, to_give_up

_MAX_HEADER_BYTES = 8192
_MAX_DISCARDED_BYTES = 65_536
_BACKLOG = 1024
LIMITS = ConnectionLimits(in_all=256, per_peer=128)
TIMEOUT_SECONDS = 5.0
"""From the connection to its end: a probe and its response take milliseconds."""


class HealthServer:
    """Responds with what `respond` returns for a path without its query."""

    def __init__(
        self,
        respond: Callable[[str], Response],
        *,
        limits: ConnectionLimits = LIMITS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._respond = respond
        self._limits = limits
        self.timeout_seconds = timeout_seconds
        self._open: set[_Connection] = set()
        self._per_peer: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[asyncio.Server]:
        """Serve while the block runs. Raises LaunchError when the port cannot be bound."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: _Connection(self), host, port, backlog=_BACKLOG)
        except OSError as error:
            raise LaunchError(
                f"cannot listen on {host}:{port}: {error.strerror or error}", hint="set health.port to a free port"
            ) from error
        async with server:
            yield server
            for connection in tuple(self._open):
                connection.abort()

    def opened(self, connection: _Connection) -> None:
        """Count a new connection; if there are too many now, others are given up."""
        self._open.add(connection)
        self._per_peer[connection.peer] += 1
        limits = self._limits
        if len(self._open) > limits.in_all or self._per_peer[connection.peer] > limits.per_peer:
            idle = (Idle(other, other.peer, other.since) for other in self._open)
            for other in to_give_up(idle, limits):
                other.abort()

    def closed(self, connection: _Connection) -> None:
        """Count no more a connection that `opened` has counted."""
        if connection in self._open:
            self._open.remove(connection)
            self._per_peer[connection.peer] -= 1
            if not self._per_peer[connection.peer]:
                del self._per_peer[connection.peer]

    def respond(self, head: bytes) -> bytes:
        """Return the whole response to a request's headers."""
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not parts[1].startswith(b"/"):
            return render(Response(400, b"bad request\n"))
        if parts[0] not in {b"GET", b"HEAD"}:
            return render(Response(405, b"method not allowed; use GET or HEAD\n"), allow=True)
        path = parts[1].partition(b"?")[0].decode("ascii", "replace")
        return render(self._respond(path), head_only=parts[0] == b"HEAD")


class _Connection(asyncio.Protocol):
    """One client: a request, a response, and the end."""

    def __init__(self, server: HealthServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._received = b""
        self._discarded = 0
        self._responded = False
        self.peer = ""
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer_of(host_of(transport.get_extra_info("peername")))
        self.since = loop.time()
        self._deadline = loop.call_later(self._server.timeout_seconds, self.abort)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._responded:
            self._discarded += len(data)
            if self._discarded > _MAX_DISCARDED_BYTES:
                self.abort()
            return
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if 0 <= end <= _MAX_HEADER_BYTES:
            self._send(self._server.respond(self._received[: end + 4]))
        elif len(self._received) > _MAX_HEADER_BYTES:
            self._send(render(Response(431, b"request headers too large\n")))

    def _send(self, response: bytes) -> None:
        """Send the response and end our half. What the client still sends is discarded: a reset loses the response."""
        self._responded = True
        if self._transport is not None:
            self._transport.write(response)
            self._transport.write_eof()

    def abort(self) -> None:
        """Give the connection up."""
        self._server.closed(self)
        if self._transport is not None:
            self._transport.abort()


def render(response: Response, *, head_only: bool = False, allow: bool = False) -> bytes:
    """Return a response as bytes. A 204 has neither body nor Content-Length."""
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    if response.status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(response.body)}")
        if response.body:
            lines.append(f"Content-Type: {response.content_type}")
    if allow:
        lines.append("Allow: GET, HEAD")
    lines += ["Cache-Control: no-store", "Connection: close"]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head if head_only or response.status == HTTPStatus.NO_CONTENT else head + response.body
