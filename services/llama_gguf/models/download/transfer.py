"""One file on its way: a first answer says how the server serves it, then connections fetch segments side by side.

Where ranges work, a file is fetched in segments; else, or where nothing would tell a mixture of two versions, whole by
one connection. Everything that changes is changed on the event loop, the disk is touched in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import uvloop
from aiohttp import ClientResponse

from llama_gguf.logs import fields
from llama_gguf.models.download import errors
from llama_gguf.models.download.background import Upkeep
from llama_gguf.models.download.http_source import BadAddressError, BrokenError, Source, body, new_session
from llama_gguf.models.download.partial_file import Part
from llama_gguf.models.download.range_response import Beyond, Piece, Refusal, Whole, read_answer
from llama_gguf.models.download.segments import Ledger, covered, front, gaps
from llama_gguf.models.download.spec import Job
from llama_gguf.models.download.workers import Crew, RefusedError, StaleError, UnfitError, range_headers
from llama_gguf.settings.gguf_file import MAGIC

log = logging.getLogger(__name__)

_MOST_CHANGES = 2


def run(job: Job, destination: Path) -> None:
    """Do what `download.download` promises, but let OSErrors of the disk through."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(job, destination))


async def _run(job: Job, destination: Path) -> None:
    remote, part = job.remote, Part(destination)
    with ThreadPoolExecutor(job.connections + 2, thread_name_prefix="download") as pool:
        try:
            async with new_session(job.tuning.connect, job.tuning.stall) as session:
                source = Source(session, remote.url, remote.headers)
                digested = remote.sha256 is not None
                upkeep = Upkeep(part, job.reporter, pool, digested=digested, note_seconds=job.tuning.note)
                await Transfer(job, part, source, upkeep).run()
        except BadAddressError as error:
            raise errors.bad_address(remote.label) from error
        finally:
            part.close()


class Transfer:
    """One download, from what an earlier process left to the finished file."""

    def __init__(self, job: Job, part: Part, source: Source, upkeep: Upkeep) -> None:
        self._job = job
        self._remote = job.remote
        self._part = part
        self._source = source
        self._upkeep = upkeep
        self._ranged = True
        self._changes = 0
        self._resumed = False  # whether there are bytes that an earlier process fetched
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Fetch it. Raises ModelError, and OSError when the disk fails."""
        self._part.take_up()
        self._resumed = bool(self._part.done)
        began_at = self._clock()
        while True:
            before = covered(self._part.done)
            try:
                await self._attempt()
                if await self._conclude():
                    break
            except BrokenError as error:
                if error.permanent or covered(self._part.done) <= before:
                    raise self._unreachable(error) from error
                log.warning(
                    "download interrupted, resuming", extra=fields(source=self._remote.label, reason=str(error))
                )
                await asyncio.sleep(self._job.tuning.pause)
            except StaleError:
                self._changes += 1
                self._ranged = self._changes < _MOST_CHANGES  # else servers that disagree would never let it end
                log.warning("the file there has changed, starting over", extra=fields(source=self._remote.label))
                self._part.discard()
            except UnfitError:
                self._ranged = False
        seconds = round(self._clock() - began_at, 1)
        log.info("downloaded", extra=fields(source=self._remote.label, seconds=seconds))

    async def _attempt(self) -> None:
        """Have every byte in the part, by one way. Raises BrokenError, StaleError and UnfitError for another try."""
        part = self._part
        if part.done and not (part.version or self._remote.sha256):
            part.discard()  # nothing could tell a mixture of two versions
        gap = next(gaps(part.done, part.size), None)
        if gap is None:
            self._agreed(part.size)
            return  # killed between the last byte and the rename
        start, end = gap
        asked_end: int | None = None  # to the end, wherever that is
        if self._job.connections > 1:
            asked_end = min(end, start + self._job.tuning.segment_bytes)
        elif part.size:
            asked_end = end
        headers = range_headers(start, asked_end, part.version) if self._ranged else {}
        async with self._source.ask(headers) as response:
            match read_answer(response.status, response.headers):
                case Whole(total, version):
                    await self._receive_whole(response, self._agreed(total), version)
                case Piece(first, _, total, version) if self._ranged and first == start:
                    await self._receive_pieces(response, total, version)
                case Beyond(total) if self._ranged and part.done and total == front(part.done):
                    part.plan(part.version, total)
                case Beyond() if self._ranged and part.done:
                    raise StaleError
                case Refusal() as refusal:
                    raise self._refused(RefusedError(refusal))
                case _ if self._ranged:
                    raise UnfitError
                case _:
                    raise errors.bad_answer(self._remote.label, "answered another range than asked for")

    async def _receive_whole(self, response: ClientResponse, total: int | None, version: str) -> None:
        async with aclosing(await self._opened(response, 0)) as opened:
            self._start_over(version, total)
            ledger = Ledger(total)
            work = self._crew(ledger).receive(ledger.first(self._clock()), opened)
            await self._upkeep.during([work], ledger)
        if total is None:
            ledger.seal()
        if not ledger.complete:
            raise BrokenError(f"{ledger.bytes_done} of {total} bytes came")

    async def _receive_pieces(self, response: ClientResponse, total: int, version: str) -> None:
        part, known = self._part, self._part.version
        if part.size not in (None, total) or (known and version and known != version):
            raise StaleError
        if not version and not self._remote.sha256:
            raise UnfitError
        self._agreed(total)
        smallest = self._job.tuning.segment_bytes
        ledger = Ledger(total, part.done, connections=self._job.connections, smallest=smallest)
        segment = ledger.first(self._clock())
        async with aclosing(await self._opened(response, segment.start)) as opened:
            if part.done:
                part.plan(known or version, total)
            else:
                self._start_over(version, total)
            crew = self._crew(ledger)
            others = min(self._job.connections - 1, ledger.bytes_pending // smallest)
            work = [crew.work((segment, opened)), *(crew.work() for _ in range(others))]
            try:
                await self._upkeep.during(work, ledger)
            except BrokenError as error:
                raise self._unreachable(error) from error
            except RefusedError as error:
                raise self._refused(error) from error

    def _crew(self, ledger: Ledger) -> Crew:
        return Crew(self._source, ledger, self._part.version, self._upkeep.write, self._job.tuning)

    def _start_over(self, version: str, total: int | None) -> None:
        self._part.restart(version, total)
        self._upkeep.begin_anew()
        self._resumed = False

    def _agreed(self, total: int | None) -> int | None:
        """Return the size, offered or announced. Raises ModelError when the two differ."""
        announced = self._remote.size
        if announced is not None and total is not None and announced != total:
            self._part.discard()
            raise errors.bad_answer(self._remote.label, f"{total} bytes were offered where {announced} were announced")
        return announced if total is None else total

    async def _opened(self, response: ClientResponse, start: int) -> AsyncGenerator[bytes, None]:
        """Return the body, which begins at `start` of the file, once its first bytes are those of a GGUF file."""
        chunks, head = body(response), b""
        while start == 0 and len(head) < len(MAGIC):
            chunk = await anext(chunks, b"")
            head += chunk
            if not chunk or not head.startswith(MAGIC[: len(head)]):
                raise errors.not_gguf(self._remote.label, response.headers.get("Content-Type", ""))

        async def all_of_it() -> AsyncGenerator[bytes, None]:
            async with aclosing(chunks):
                if head:
                    yield head
                async for chunk in chunks:
                    yield chunk

        return all_of_it()

    async def _conclude(self) -> bool:
        """Make the complete part the file; False when bytes of an earlier process were wrong, and are gone now."""
        wanted = self._remote.sha256
        if wanted:
            found = await self._upkeep.digest_of(covered(self._part.done), self._remote.label)
            if found != wanted:
                self._part.discard()
                if not self._resumed:
                    raise errors.wrong_digest(self._remote.label, found, wanted)
                log.warning("what was there of the download is damaged, starting over", extra=fields(sha256=found))
                return False
        await self._upkeep.in_thread(self._part.finish)
        return True

    def _unreachable(self, error: BrokenError) -> Exception:
        return errors.unreachable(self._remote.label, str(error), permanent=error.permanent)

    def _refused(self, error: RefusedError) -> Exception:
        return errors.refused(self._remote.label, error.status, permanent=error.permanent)
