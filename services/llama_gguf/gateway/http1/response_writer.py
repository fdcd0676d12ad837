"""The writing half of a client connection: the ResponseSink of the request that is being answered.

Owns how an answer is framed for this client (chunks, or up to the connection's end for HTTP/1.0; no body for HEAD) and
the transport's backpressure. After the client has gone every call does nothing.
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
    """Writes answers to one client. The reading half says for each request how they are framed."""

    __slots__ = (
        "_head_only",
        "_heads",
        "_keep_alive",
        "_transport",
        "_writable",
        "_write_batch",
        "on_writable",
        "takes_chunks",
    )

    def __init__(self, heads: ResponseHeadWriter, write_batch: WriteBatch) -> None:
        self._heads = heads
        self._write_batch = write_batch
        self._transport: asyncio.Transport | None = None
        self._keep_alive = True  # the connection goes on after this answer
        self._head_only = False  # the request is HEAD: the answer has no body
        self._writable = True
        self.takes_chunks = True
        self.on_writable: Callable[[], None] | None = None

    def send(self, status: int, lines: HeaderLines, body: bytes) -> None:
        """Answer as a whole."""
        if self._transport is not None:
            head = self._heads.whole(status, lines, len(body), close=not self._keep_alive)
            self._write_batch.write(self._transport, head if self._head_only else head + body)

    def open(self, status: int, lines: HeaderLines, first: bytes, *, framed: bool) -> bool:
        """Begin an answer of unknown length."""
        if self._transport is None:
            return True
        head = self._heads.stream(status, lines, chunked=self.takes_chunks, close=not self._keep_alive)
        if first and not framed and self.takes_chunks:
            first = chunk(first)
        self._write_batch.write(self._transport, head + first)
        return self._writable

    def write_framed(self, data: bytes) -> bool:
        """Write bytes that carry their chunk framing."""
        if self._transport is not None:
            self._write_batch.write(self._transport, data)
        return self._writable

    def write(self, data: bytes) -> bool:
        """Write bytes of the body, in a chunk where the client takes chunks."""
        if self._transport is not None and data:
            self._write_batch.write(self._transport, chunk(data) if self.takes_chunks else data)
        return self._writable

    def end(self, *, framed: bool = False) -> None:
        """Finish an answer of unknown length; without chunks its end is the connection's."""
        if not framed and self.takes_chunks and self._transport is not None:
            self._write_batch.write(self._transport, LAST_CHUNK)

    def abort(self) -> None:
        """Cut the connection."""
        self._keep_alive = False
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Note that the client is slow."""
        self._writable = False

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        self._writable = True
        if self.on_writable is not None:
            self.on_writable()
