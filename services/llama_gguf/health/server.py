"""A tiny HTTP/1.1 server for GET and HEAD: no key, no proxying, one response per connection.

Not aiohttp, because this process serves five fixed paths and must do so within a second of the start: without it the
interpreter starts in half the time and is 13 MB smaller. Requests are capped in size, time and number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from llama_gguf.errors import LaunchError
from llama_gguf.health.responses import Response

_MAX_HEADER_BYTES = 8192
_HEADER_TIMEOUT_SECONDS = 5.0
_MAX_CONNECTIONS = 256


class HealthServer:
    """Responds with what `respond` returns for a path without its query."""

    def __init__(self, respond: Callable[[str], Response]) -> None:
        self._respond = respond
        self._open = 0

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[asyncio.Server]:
        """Serve while the block runs. Raises LaunchError when the port cannot be bound."""
        try:
            server = await asyncio.start_server(self._connection, host, port, limit=_MAX_HEADER_BYTES)
        except OSError as error:
            raise LaunchError(
                f"cannot listen on {host}:{port}: {error.strerror or error}", hint="set health.port to a free port"
            ) from error
        async with server:
            yield server

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client disconnected or sent no complete request: no response
        finally:
            self._open -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEADER_TIMEOUT_SECONDS):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                writer.write(render(Response(431, b"request headers too large\n")))
            else:
                writer.write(self.respond(head))
            await writer.drain()

    def respond(self, head: bytes) -> bytes:
        """Return the whole response to a request's headers."""
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not parts[1].startswith(b"/"):
            return render(Response(400, b"bad request\n"))
        if parts[0] not in {b"GET", b"HEAD"}:
            return render(Response(405, b"method not allowed; use GET or HEAD\n"), allow=True)
        path = parts[1].partition(b"?")[0].decode("ascii", "replace")
        return render(self._respond(path), head_only=parts[0] == b"HEAD")


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
