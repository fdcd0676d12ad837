"""The connections that download one file in parallel, each one segment after the other.

A connection that fails, or that an overloaded server refuses, is retried after a delay; its segment is free for others.
The download fails when a connection fails again without progress since its last failure, and no other is receiving.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing

from aiohttp import ClientResponse

from llama_gguf.logs import fields
from llama_gguf.models.download.http_client import DownloadInterruptedError, body
from llama_gguf.models.download.http_source import HttpSource
from llama_gguf.models.download.range_response import ErrorResponse, InvalidRange, PartialContent, read_response
from llama_gguf.models.download.segments import Segment, SegmentTracker
from llama_gguf.models.download.spec import Tuning
from llama_gguf.models.server_message import is_transient

log = logging.getLogger(__name__)

Write = Callable[[list[bytes], int], Coroutine[None, None, None]]
"""Writes chunks consecutively at a position of the file, and returns when they are written."""

_WRITE_BYTES = 1024 * 1024
_WRITE_SECONDS = 0.5  # maximum age of received bytes that are not written, on a slow connection
_IDLE_SECONDS = 0.1


class FileChangedError(Exception):
    """The file on the server is not the one of the bytes downloaded so far."""


class RangesUnsupportedError(Exception):
    """The server does not serve ranges reliably."""


class ErrorStatusError(Exception):
    """The server responds with an error status."""

    def __init__(self, response: ErrorResponse, message: str = "") -> None:
        super().__init__(f"the server responded with {response.status}")
        self.message = message  # the server's own, as it came
        self.status = response.status
        self.retry_after = response.retry_after
        self.permanent = not is_transient(response.status)


def range_headers(start: int, end: int | None, validator: str) -> dict[str, str]:
    """Return the headers that request the bytes from `start` to before `end`, if the file still has `validator`."""
    headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
    return headers | ({"If-Range": validator} if validator else {})


class _Batch:
    """Received chunks to be written: one batch is written while the next one is received.

    So the network is read continuously: what a connection still has in its buffer is lost when it fails.
    """

    def __init__(self, write: Write, position: int) -> None:
        self.start = position
        self.end = position  # of what was added
        self._write = write
        self._chunks: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None

    def add(self, chunk: bytes) -> None:
        """Append `chunk`."""
        self._chunks.append(chunk)
        self.end += len(chunk)

    async def push(self) -> int:
        """Start to write what was added; return the position up to which everything is written."""
        written = await self._written()
        if self._chunks:
            self._writing = asyncio.create_task(self._write(self._chunks, self.start))
            self._chunks, self.start = [], self.end
        return written

    async def flush(self) -> int:
        """Write what was added; return the position up to which everything is written."""
        await self.push()
        return await self._written()

    async def stop(self) -> None:
        """Wait for the disk. Its errors are raised by the next call, if there is one."""
        if self._writing:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _written(self) -> int:
        if self._writing:
            await self._writing
            self._writing = None
        return self.start


class DownloadWorkers:
    """The connections of one download, and what they share."""

    def __init__(
        self,
        source: HttpSource,
        tracker: SegmentTracker,
        validator: str,
        write: Write,
        tuning: Tuning,
    ) -> None:
        self._source = source
        self._tracker = tracker
        self._validator = validator
        self._write = write
        self._tuning = tuning
        self._clock = asyncio.get_running_loop().time
        self._receiving = 0
        self._last_byte_at = self._clock()

    async def work(self, opened: tuple[Segment, AsyncIterator[bytes]] | None = None) -> None:
        """Run one connection until the file is complete; `opened` is a segment whose response has started.

        Raises DownloadInterruptedError and ErrorStatusError when retrying cannot help, FileChangedError and
        RangesUnsupportedError when the segments are not of one file.
        """
        rate, failures, bytes_at_failure = 0.0, 0, self._tracker.bytes_done
        while not self._tracker.complete:
            segment = opened[0] if opened else self._tracker.take(self._clock(), rate)
            if segment is None:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            failure: DownloadInterruptedError | ErrorStatusError | None = None
            self._receiving += 1
            try:
                await (self.receive(segment, opened[1]) if opened else self._fetch(segment))
            except (DownloadInterruptedError, ErrorStatusError) as error:
                failure = error
            finally:
                self._receiving -= 1
                self._tracker.release(segment)
            opened = None
            if failure is None:
                rate, failures = segment.rate(self._clock()), 0
                continue
            self._raise_if_stuck(failure, bytes_at_failure)
            failures = 1 if segment.position > segment.start else failures + 1
            bytes_at_failure = self._tracker.bytes_done
            delay = self._retry_delay(failure, failures)
            log.warning("download interrupted, resuming", extra=fields(reason=str(failure), retry_seconds=delay))
            await asyncio.sleep(delay)

    async def receive(self, segment: Segment, chunks: AsyncIterator[bytes]) -> None:
        """Write `chunks` into `segment` until its end or theirs."""
        start, batch, last_push = segment.position, _Batch(self._write, segment.position), self._clock()
        try:
            async for chunk in chunks:
                room = segment.end - batch.end
                if room <= 0:
                    break
                batch.add(chunk[:room])
                if batch.end - batch.start >= _WRITE_BYTES or self._clock() - last_push >= _WRITE_SECONDS:
                    self._record_written(segment, await batch.push())
                    last_push = self._clock()
        except DownloadInterruptedError:
            self._record_written(segment, await batch.flush())
            raise
        finally:
            await batch.stop()
        self._record_written(segment, await batch.flush())
        if segment.position == start and segment.remaining:
            raise DownloadInterruptedError("the response had no data")

    def _record_written(self, segment: Segment, written: int) -> None:
        """Record that `segment` is on disk up to `written`."""
        if written > segment.position:
            self._tracker.record_written(segment, written - segment.position)
            self._last_byte_at = self._clock()

    async def _fetch(self, segment: Segment) -> None:
        headers = range_headers(segment.position, segment.end, self._validator)
        async with self._source.get(headers) as response:
            self._check_response(response, segment)
            async with aclosing(body(response)) as chunks:
                await self.receive(segment, chunks)

    def _check_response(self, response: ClientResponse, segment: Segment) -> None:
        match read_response(response.status, response.headers):
            case PartialContent(start, _, total, validator):
                if total != self._tracker.size or (validator and self._validator and validator != self._validator):
                    raise FileChangedError
                if start != segment.position:
                    raise RangesUnsupportedError
            case InvalidRange():
                raise RangesUnsupportedError
            case ErrorResponse() as error:
                raise ErrorStatusError(error)
            case _:
                raise FileChangedError

    def _raise_if_stuck(self, failure: DownloadInterruptedError | ErrorStatusError, bytes_at_failure: int) -> None:
        """Raise `failure` if it is permanent, or there was no progress since the last one."""
        idle_seconds = self._clock() - self._last_byte_at
        idle = not self._receiving or idle_seconds > 2 * self._tuning.read_timeout
        if failure.permanent or (self._tracker.bytes_done <= bytes_at_failure and idle):
            raise failure

    def _retry_delay(self, failure: DownloadInterruptedError | ErrorStatusError, failures: int) -> float:
        busy = isinstance(failure, ErrorStatusError)
        delay = (self._tuning.busy_delay if busy else self._tuning.retry_delay) * 2.0 ** min(failures - 1, 10)
        if isinstance(failure, ErrorStatusError) and failure.retry_after is not None:
            delay = max(failure.retry_after, self._tuning.retry_delay)
        return min(delay, self._tuning.max_delay)
