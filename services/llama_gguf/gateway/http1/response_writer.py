"""The writing half of a client connection: the ResponseSink of the current request.

Owns the framing of a response (chunked; for HTTP/1.0 up to the close of the connection; no body for HEAD) and the
transport's flow control. After the client has disconnected every call does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama_gguf.gateway.http1.chunked import LAST_CHUNK, chunk
from llama_gguf.gateway.http1.message import HeaderLines
from llama_gguf.gateway.http1.response_head import ResponseHeadWriter
from llama_gguf.gateway.http1.write_batch import WriteBatch

HIGH_WATER_BYTES = 65_536
LOW_WATER_BYTES = 16_384


class ResponseWriter(asyncio.Protocol):
    """Writes responses to one client. The reading half sets the framing for each request."""

    __slots__ = (
        "_begun",
        "_head_only",
        "_heads",
        "_keep_alive",
        "_transport",
        "_writable",
        "_write_batch",
        "accepts_chunked",
        "on_writable",
    )

    def __init__(self, heads: ResponseHeadWriter, write_batch: WriteBatch) -> None:
        self._heads = heads
        self._write_batch = write_batch
        self._transport: asyncio.Transport | None = None
        self._keep_alive = True  # the connection stays open after this response
        self._head_only = False  # the request is HEAD: the response has no body
        self._writable = True
        self._begun = False  # the final response has begun
        self.accepts_chunked = True
        self.on_writable: Callable[[], None] | None = None

    def send(self, status: int, lines: HeaderLines, body: bytes) -> None:
        """Send a complete response."""
        self._begun = True
        if self._transport is not None:
            head = self._heads.fixed_length(status, lines, len(body), close=not self._keep_alive)
            self._write_batch.write(self._transport, head if self._head_only else head + body)

    def open(self, status: int, lines: HeaderLines, first: bytes, *, framed: bool) -> bool:
        """Start a response of unknown length."""
        self._begun = True
        if self._transport is None:
            return True
        head = self._heads.stream(status, lines, chunked=self.accepts_chunked, close=not self._keep_alive)
        if first and not framed and self.accepts_chunked:
            first = chunk(first)
        self._write_batch.write(self._transport, head + first)
        return self._writable

    def write_framed(self, data: bytes) -> bool:
        """Write bytes that are already chunked."""
        if self._transport is not None:
            self._write_batch.write(self._transport, data)
        return self._writable

    def write(self, data: bytes) -> bool:
        """Write bytes of the body, as a chunk if the client accepts chunked bodies."""
        if self._transport is not None and data:
            self._write_batch.write(self._transport, chunk(data) if self.accepts_chunked else data)
        return self._writable

    def end(self, *, framed: bool = False) -> None:
        """Finish a response of unknown length; one that is not chunked ends when the connection is closed."""
        if not framed and self.accepts_chunked and self._transport is not None:
            self._write_batch.write(self._transport, LAST_CHUNK)

    def close_after_response(self) -> None:
        """Close the connection after the response, which says so."""
        self._keep_alive = False

    def abort(self) -> None:
        """Abort the connection."""
        self._keep_alive = False
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """The write buffer is above the high-water mark."""
        self._writable = False

    def resume_writing(self) -> None:
        """The write buffer is below the low-water mark."""
        self._writable = True
        if self.on_writable is not None:
            self.on_writable()
