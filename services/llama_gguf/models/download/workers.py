"""The connections that fetch one file side by side, each one segment after the other.

A connection that breaks, or that the server has no room for, pauses and comes back; its segment goes to whoever is
free. The crew gives up when a setback comes and no byte has come since the last one, with nobody else receiving.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from aiohttp import ClientResponse

from llama_gguf.logs import fields
from llama_gguf.models.download.http_source import BrokenError, Source, body
from llama_gguf.models.download.range_response import Piece, Refusal, Unusable, read_answer
from llama_gguf.models.download.segments import Ledger, Segment
from llama_gguf.models.download.spec import Tuning

log = logging.getLogger(__name__)

Write = Callable[[list[bytes], int], Awaitable[None]]
"""Puts chunks, one after the other, at a position of the file, and returns when they are there."""

_WRITE_BYTES = 1024 * 1024
_WRITE_SECONDS = 0.5  # a slow connection's bytes count that often
_IDLE_SECONDS = 0.1
_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class StaleError(Exception):
    """The file at the address is another one than that of the bytes at hand."""


class UnfitError(Exception):
    """The ranges of this server cannot be relied on."""


class RefusedError(Exception):
    """The server answers with something else than the file."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"the server answered {refusal.status}")
        self.status = refusal.status
        self.retry_after = refusal.retry_after
        self.permanent = refusal.status not in _TRANSIENT_STATUSES


def range_headers(start: int, end: int | None, version: str) -> dict[str, str]:
    """Return the headers that ask for the bytes from `start` to before `end`, all of them if the file is `version`."""
    headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
    return headers | ({"If-Range": version} if version else {})


class _Batch:
    """Chunks on their way to the disk: one batch is written while the next one comes.

    So the network is read all the time: what a connection had still in its buffer is lost when it breaks.
    """

    def __init__(self, write: Write, position: int) -> None:
        self.start = position
        self.end = position  # of what was added
        self._write = write
        self._chunks: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None

    def add(self, chunk: bytes) -> None:
        """Add what comes next in the file."""
        self._chunks.append(chunk)
        self.end += len(chunk)

    async def push(self) -> int:
        """Begin to write what was added; return up to where all is on disk."""
        written = await self._settled()
        if self._chunks:
            self._writing = asyncio.create_task(self._write_out(self._chunks, self.start))
            self._chunks, self.start = [], self.end
        return written

    async def flush(self) -> int:
        """Write what was added; return up to where all is on disk."""
        await self.push()
        return await self._settled()

    async def stop(self) -> None:
        """Wait for the disk. What goes wrong there shows at the next call, and not at all if there is none."""
        if self._writing:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _settled(self) -> int:
        if self._writing:
            await self._writing
            self._writing = None
        return self.start

    async def _write_out(self, chunks: list[bytes], position: int) -> None:
        await self._write(chunks, position)


class Crew:
    """What the connections share."""

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        version: str,
        write: Write,
        tuning: Tuning,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._version = version
        self._write = write
        self._tuning = tuning
        self._clock = asyncio.get_running_loop().time
        self._receiving = 0
        self._last_byte_at = self._clock()

    async def work(self, opened: tuple[Segment, AsyncIterator[bytes]] | None = None) -> None:
        """Be one connection, until the file is complete; `opened` is a segment whose answer is here already.

        Raises BrokenError and RefusedError when there is no hope, StaleError and UnfitError when segments do not fit
        together.
        """
        rate, setbacks, mark = 0.0, 0, self._ledger.bytes_done
        while not self._ledger.complete:
            segment = opened[0] if opened else self._ledger.take(self._clock(), rate)
            if segment is None:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            trouble: BrokenError | RefusedError | None = None
            self._receiving += 1
            try:
                await (self.receive(segment, opened[1]) if opened else self._fetch(segment))
            except (BrokenError, RefusedError) as error:
                trouble = error
            finally:
                self._receiving -= 1
                self._ledger.release(segment)
            opened = None
            if trouble is None:
                rate, setbacks = segment.rate(self._clock()), 0
                continue
            self._check_hope(trouble, mark)
            setbacks = 1 if segment.position > segment.start else setbacks + 1
            mark = self._ledger.bytes_done
            pause = self._pause(trouble, setbacks)
            log.warning("download interrupted, resuming", extra=fields(reason=str(trouble), pause_seconds=pause))
            await asyncio.sleep(pause)

    async def receive(self, segment: Segment, chunks: AsyncIterator[bytes]) -> None:
        """Write `chunks` into `segment` until its end or theirs."""
        begin, batch, last = segment.position, _Batch(self._write, segment.position), self._clock()
        try:
            async for chunk in chunks:
                room = segment.end - batch.end
                if room <= 0:
                    break
                batch.add(chunk[:room])
                if batch.end - batch.start >= _WRITE_BYTES or self._clock() - last >= _WRITE_SECONDS:
                    self._count(segment, await batch.push())
                    last = self._clock()
        except BrokenError:
            self._count(segment, await batch.flush())
            raise
        finally:
            await batch.stop()
        self._count(segment, await batch.flush())
        if segment.position == begin and segment.remaining:
            raise BrokenError("no bytes came")

    def _count(self, segment: Segment, written: int) -> None:
        """Note that `segment` is on disk up to `written`."""
        if written > segment.position:
            self._ledger.wrote(segment, written - segment.position)
            self._last_byte_at = self._clock()

    async def _fetch(self, segment: Segment) -> None:
        headers = range_headers(segment.position, segment.end, self._version)
        async with self._source.ask(headers) as response:
            self._judge(response, segment)
            async with aclosing(body(response)) as chunks:
                await self.receive(segment, chunks)

    def _judge(self, response: ClientResponse, segment: Segment) -> None:
        match read_answer(response.status, response.headers):
            case Piece(start, _, total, version):
                if total != self._ledger.size or (version and self._version and version != self._version):
                    raise StaleError
                if start != segment.position:
                    raise UnfitError
            case Unusable():
                raise UnfitError
            case Refusal() as refusal:
                raise RefusedError(refusal)
            case _:
                raise StaleError

    def _check_hope(self, trouble: BrokenError | RefusedError, mark: int) -> None:
        """Raise `trouble` when waiting longer makes no sense."""
        silence = self._clock() - self._last_byte_at
        stuck = self._ledger.bytes_done <= mark and (not self._receiving or silence > 2 * self._tuning.stall)
        if trouble.permanent or stuck:
            raise trouble

    def _pause(self, trouble: BrokenError | RefusedError, setbacks: int) -> float:
        busy = isinstance(trouble, RefusedError)
        pause = (self._tuning.busy if busy else self._tuning.pause) * 2.0 ** min(setbacks - 1, 10)
        if isinstance(trouble, RefusedError) and trouble.retry_after is not None:
            pause = max(trouble.retry_after, self._tuning.pause)
        return min(pause, self._tuning.longest_pause)
