"""The connection pool to the engine: one asyncio Protocol per connection to its Unix socket, strict about responses.

Owns framing and reuse, and knows nothing of what a response means. A connection serves one request at a time and
reports to a Receiver by callbacks: head, data, failure. The bytes of a body are passed on as received, chunk framing
included (`raw`), or decoded.

The engine closes connections idle for 5 s, after 100 requests, and after every chunked response (cpp-httplib takes the
end of one for a failure). A request that is written to a connection the engine is just closing is lost, and nobody can
know whether it was read. So the pool closes connections earlier than the engine does, keeps none after a chunked
response, and looks before each use whether the engine has closed it after all.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import time
from collections import deque
from pathlib import Path
from typing import Protocol, cast

from llama_gguf.gateway.http1.inline_task import continue_as_task
from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.gateway.upstream.response_parser import (
    ChunkDecoder,
    ChunkFraming,
    EngineFailure,
    ResponseHead,
    check_interim_head,
    parse_response_head,
    timeout_detail,
)

MAX_HEAD_BYTES = 65_536
IDLE_SECONDS = 4.0
MAX_REQUESTS = 90
MAX_IDLE = 64
MAX_HEADS = 512
BACKLOG_SECONDS = 0.05
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Receiver(Protocol):
    """Receives a response piece by piece, in order. Called from the event loop's thread."""

    raw: bool

    def on_head(self, head: ResponseHead, first: bytes, *, complete: bool) -> None:
        """Receive the head and the part of the body that came with it; `complete`: that was all of it."""

    def on_data(self, data: bytes, *, complete: bool) -> None:
        """Receive the next bytes of the body."""

    def on_failure(self, failure: EngineFailure) -> None:
        """The response ended before it was complete."""

    def check(self, now: float) -> None:
        """Fail if the response takes too long; called periodically while it is incomplete."""


class EngineConnection(asyncio.Protocol):
    """One connection to the engine."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._partial_head = b""  # an incomplete head
        self._head: ResponseHead | None = None  # of the response whose body is arriving
        self._remaining = 0  # bytes of that body that have not arrived, if its length is known
        self._chunks: ChunkFraming | None = None  # else the parser of its chunks
        self.paused = False
        self.served = 0
        self.idle_since = 0.0
        self.usable = True
        self._poll: select.poll | None = None  # of one that is used again

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._client.add(self)

    @property
    def engine_pid(self) -> int:
        """The process that listens at the other end."""
        assert self._transport is not None  # noqa: S101 - set before the pool hands out the connection
        peer = self._transport.get_extra_info("socket")
        pid: int = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
        return pid

    @property
    def stale(self) -> bool:
        """Whether the idle connection has been closed by the engine, or has data that nobody asked for.

        Asks the kernel: the event loop reports either only in its next iteration.
        """
        assert self._transport is not None  # noqa: S101 - set before the pool hands out the connection
        if self._transport.is_closing():
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(self._poll.poll(0))

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Send a request; `receiver` gets the response."""
        assert self._transport is not None  # noqa: S101 - set before the pool hands out the connection
        self.served += 1
        self._receiver = receiver
        self._client.write_batch.write(self._transport, request)

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:  # unsolicited data: the connection cannot be trusted any more
            self.close()
            return
        try:
            if self._head is None:
                self._receive_head(receiver, data)
            elif (chunks := self._chunks) is not None:
                chunks.feed(data)
                complete = chunks.complete
                if complete:
                    self._finish(self._head)
                receiver.on_data(data if receiver.raw else chunks.take(), complete=complete)
            else:
                self._receive_body(receiver, self._head, data)
        except EngineFailure as failure:
            self._receiver = None
            self.close()
            receiver.on_failure(failure)

    def _receive_head(self, receiver: Receiver, data: bytes) -> None:
        if self._partial_head:
            data = self._partial_head + data
        while data.startswith(b"HTTP/1.1 1") and (end := data.find(b"\r\n\r\n") + 4) >= 4:
            check_interim_head(data[:end])
            data = data[end:]
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if not data.startswith(b"HTTP/1.1 "[: len(data)]):
                raise EngineFailure("protocol", "not an HTTP response")
            if len(data) > MAX_HEAD_BYTES:
                raise EngineFailure("protocol", "response headers too long")
            self._partial_head = data
            return
        self._partial_head = b""
        head = self._client.head(data[:end])
        if head.length is None:
            chunks = ChunkFraming() if receiver.raw else ChunkDecoder()
            chunks.feed(data)
            if chunks.complete:
                self._finish(head)
            else:
                self._head, self._chunks = head, chunks
            receiver.on_head(head, data[end:] if receiver.raw else chunks.take(), complete=chunks.complete)
            return
        first = data[end:]
        remaining = head.length - len(first)
        if remaining < 0:
            raise EngineFailure("protocol", "more than one response")
        if remaining:
            self._head, self._remaining = head, remaining
        else:
            self._finish(head)
        receiver.on_head(head, first, complete=not remaining)

    def _receive_body(self, receiver: Receiver, head: ResponseHead, data: bytes) -> None:
        self._remaining -= len(data)
        if self._remaining < 0:
            raise EngineFailure("protocol", "more than one response")
        complete = not self._remaining
        if complete:
            self._finish(head)
        receiver.on_data(data, complete=complete)

    def _finish(self, head: ResponseHead) -> None:
        self._receiver = self._head = self._chunks = None
        if self.paused:
            self.resume()
        reusable = self.usable and head.keep_alive and head.length is not None and self.served < MAX_REQUESTS
        # If the engine has responded before it received all of the request, the rest would precede the next one.
        if reusable and not self._unsent:
            self._client.release(self)
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._client.discard(self)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_failure(EngineFailure("closed", str(exc) if exc else ""))

    @property
    def _unsent(self) -> int:
        """How many bytes the engine has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def cancel(self, receiver: Receiver) -> None:
        """Abort the connection unless it has finished with `receiver`: then it may already serve another."""
        if self._receiver is receiver:
            self.abort()

    def abort(self) -> None:
        """Abort the connection: the engine notices at once and frees the slot. The receiver is not called again."""
        self._receiver = None
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close the connection; no request is in progress on it."""
        self.usable = False
        if self._transport is None:
            return
        if self._unsent:  # to close, the transport would wait for an engine that may never read it
            self._transport.abort()
        else:
            self._transport.close()

    def check(self, now: float) -> None:
        """Have the receiver, if there is one, check its timeouts."""
        if self._receiver is not None:
            self._receiver.check(now)

    def pause(self) -> None:
        """Stop reading: the client's write buffer is full."""
        if not self.paused and self._transport is not None and not self._transport.is_closing():
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Resume reading."""
        if self.paused and self._transport is not None:
            self.paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()


class EngineClient:
    """The pool of connections to one engine."""

    def __init__(self, socket: Path, write_batch: WriteBatch, *, connect_timeout: float) -> None:
        self.write_batch = write_batch
        self._socket = str(socket)
        self._connect_timeout = connect_timeout
        self._idle: deque[EngineConnection] = deque()
        self._open: set[EngineConnection] = set()
        self._heads: dict[bytes, ResponseHead] = {}  # the engine repeats the same few heads
        self.engine_pid = 0  # the process that accepted the latest connection, 0 = none yet

    def head(self, data: bytes) -> ResponseHead:
        """Return a parsed response head, cached by its bytes. Raises EngineFailure."""
        head = self._heads.get(data)
        if head is None:
            head = parse_response_head(data)
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[data] = head
        return head

    def acquire(self) -> EngineConnection | None:
        """Return an idle connection that should still be usable, or None."""
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < IDLE_SECONDS and not connection.stale:
                return connection
            connection.close()
        return None

    async def connect(self) -> EngineConnection:
        """Open a new connection. Raises EngineFailure.

        To connect to a Unix socket never waits: it fails at once where there is no room. So only the attempts are
        timed, and no task is needed.
        """
        loop = asyncio.get_running_loop()
        until = 0.0
        while True:
            try:
                _, connection = await loop.create_unix_connection(lambda: EngineConnection(self), self._socket)
                break
            except BlockingIOError:  # EAGAIN: more wait to be accepted than the engine's backlog holds
                now = loop.time()
                until = until or now + self._connect_timeout
                if now >= until:
                    detail = timeout_detail("connect_seconds", self._connect_timeout)
                    raise EngineFailure("timeout", detail) from None
                await asyncio.sleep(min(BACKLOG_SECONDS, until - now))
            except OSError as error:
                raise EngineFailure("connect", error.strerror or str(error)) from error
        if not connection.usable:  # it was lost in the same iteration of the event loop
            raise EngineFailure("connect", "closed at once")
        self.engine_pid = connection.engine_pid
        return connection

    def add(self, connection: EngineConnection) -> None:
        """Add a connection that has been made, so that it is checked and closed with the others."""
        self._open.add(connection)

    def release(self, connection: EngineConnection) -> None:
        """Return a connection to the pool; its response is complete."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if len(self._idle) > MAX_IDLE:
            self._idle.popleft().close()

    def discard(self, connection: EngineConnection) -> None:
        """Remove a closed connection from the pool."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def check(self, now: float) -> None:
        """Close connections that have been idle too long, and have the others' receivers check their timeouts."""
        for connection in tuple(self._open):
            connection.check(now)
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.popleft().close()

    def close(self) -> None:
        """Abort every connection."""
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()


class _Collector:
    """Collects a small response."""

    raw = False

    def __init__(self, done: asyncio.Future[tuple[int, bytes]]) -> None:
        self._done = done
        self._status = 0
        self._parts: list[bytes] = []

    def on_head(self, head: ResponseHead, first: bytes, *, complete: bool) -> None:
        self._status = head.status
        self.on_data(first, complete=complete)

    def on_data(self, data: bytes, *, complete: bool) -> None:
        self._parts.append(data)
        if complete and not self._done.done():
            self._done.set_result((self._status, b"".join(self._parts)))

    def on_failure(self, failure: EngineFailure) -> None:
        if not self._done.done():
            self._done.set_exception(failure)

    def check(self, now: float) -> None:
        """Do nothing: `fetch` has its own timeout."""


async def fetch(client: EngineClient, request: bytes, timeout_seconds: float) -> tuple[int, bytes]:
    """Send one of the gateway's own requests on a new connection; return status and body. Raises EngineFailure."""
    await continue_as_task()  # it may be a client's request that asks
    connection = await client.connect()
    done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
    collector = _Collector(done)
    connection.send(request, collector)
    try:
        async with asyncio.timeout(timeout_seconds):
            return await done
    except TimeoutError:
        raise EngineFailure("timeout", f"no response within {timeout_seconds:g} s") from None
    finally:
        connection.cancel(collector)
