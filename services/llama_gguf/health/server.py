"""A tiny HTTP/1.1 server for GET and HEAD: no key, no proxying, one answer a connection.

Not aiohttp, because this process answers five fixed paths and must do so within a second of the start: without it the
interpreter is up in half the time and 13 MB smaller. Requests are capped in size, time and number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from llama_gguf.errors import LaunchError
from llama_gguf.health.responses import Answer

_MAX_HEAD_BYTES = 8192
_HEAD_SECONDS = 5.0
_MAX_CONNECTIONS = 256


class HealthServer:
    """Answers from `respond`, which takes a path without its query."""

    def __init__(self, respond: Callable[[str], Answer]) -> None:
        self._respond = respond
        self._open = 0

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[asyncio.Server]:
        """Serve while the block runs. Raises LaunchError when the port cannot be had."""
        try:
            server = await asyncio.start_server(self._connection, host, port, limit=_MAX_HEAD_BYTES)
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
            pass  # the client went away, or sent nothing: it gets no answer
        finally:
            self._open -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_SECONDS):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                writer.write(render(Answer(431, b"request head too large\n")))
            else:
                writer.write(self.respond(head))
            await writer.drain()

    def respond(self, head: bytes) -> bytes:
        """Return the whole answer to a request head."""
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not parts[1].startswith(b"/"):
            return render(Answer(400, b"not a request\n"))
        if parts[0] not in {b"GET", b"HEAD"}:
            return render(Answer(405, b"only GET and HEAD\n"), allow=True)
        path = parts[1].partition(b"?")[0].decode("ascii", "replace")
        return render(self._respond(path), head_only=parts[0] == b"HEAD")


def render(answer: Answer, *, head_only: bool = False, allow: bool = False) -> bytes:
    """Return an answer as bytes. A 204 has neither body nor length."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    if answer.status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(answer.body)}")
        if answer.body:
            lines.append(f"Content-Type: {answer.content_type}")
    if allow:
        lines.append("Allow: GET, HEAD")
    lines += ["Cache-Control: no-store", "Connection: close"]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head if head_only or answer.status == HTTPStatus.NO_CONTENT else head + answer.body
