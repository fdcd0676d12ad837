"""One download: the first response tells how the server serves the file, then connections fetch segments in parallel.

Where ranges work, a file is fetched in segments; else, or where nothing would detect a mixture of two versions, as a
whole by one connection. State changes only on the event loop; disk I/O is done in threads.
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
from llama_gguf.models.download.background import BackgroundWork
from llama_gguf.models.download.http_client import (
    DownloadInterruptedError,
    HttpClient,
    InvalidUrlError,
    body,
    error_message,
)
from llama_gguf.models.download.http_source import HttpSource
from llama_gguf.models.download.partial_file import PartialFile
from llama_gguf.models.download.range_response import (
    ErrorResponse,
    FullContent,
    PartialContent,
    RangeNotSatisfiable,
    read_response,
)
from llama_gguf.models.download.segments import SegmentTracker, covered, gaps, prefix_length
from llama_gguf.models.download.spec import DownloadJob
from llama_gguf.models.download.workers import (
    DownloadWorkers,
    ErrorStatusError,
    FileChangedError,
    RangesUnsupportedError,
    range_headers,
)
from llama_gguf.settings.gguf_file import MAGIC

log = logging.getLogger(__name__)

_MAX_CHANGES = 2


def run(job: DownloadJob, destination: Path) -> None:
    """Do what `download.download` promises, but let the disk's OSErrors through."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(job, destination))


async def _run(job: DownloadJob, destination: Path) -> None:
    remote, part = job.remote, PartialFile(destination)
    with ThreadPoolExecutor(job.connections + 2, thread_name_prefix="download") as pool:
        try:
            async with HttpClient(job.network, job.tuning.connect_timeout, job.tuning.read_timeout) as client:
                source = HttpSource(client, remote.url, remote.headers)
                digested = remote.sha256 is not None
                background = BackgroundWork(
                    part, job.reporter, pool, digested=digested, save_seconds=job.tuning.save_interval
                )
                await Transfer(job, part, source, background).run()
        except InvalidUrlError as error:
            raise errors.invalid_url(remote.label) from error
        finally:
            part.close()


class Transfer:
    """One download, from what an earlier process left to the finished file."""

    def __init__(self, job: DownloadJob, part: PartialFile, source: HttpSource, background: BackgroundWork) -> None:
        self._job = job
        self._remote = job.remote
        self._part = part
        self._source = source
        self._background = background
        self._ranged = True
        self._changes = 0
        self._resumed = False  # whether some bytes are from an earlier process
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Download the file. Raises ModelError, and OSError when the disk fails."""
        self._part.resume()
        self._resumed = bool(self._part.done)
        started_at = self._clock()
        while True:
            before = covered(self._part.done)
            try:
                await self._attempt()
                if await self._verify_and_finish():
                    break
            except DownloadInterruptedError as error:
                if error.permanent or covered(self._part.done) <= before:
                    raise self._unreachable(error) from error
                log.warning(
                    "download interrupted, resuming", extra=fields(source=self._remote.label, reason=str(error))
                )
                await asyncio.sleep(self._job.tuning.retry_delay)
            except FileChangedError:
                self._changes += 1
                self._ranged = self._changes < _MAX_CHANGES  # else servers that disagree would make it endless
                log.warning(
                    "the file on the server has changed, restarting the download",
                    extra=fields(source=self._remote.label),
                )
                self._part.discard()
            except RangesUnsupportedError:
                self._ranged = False
        seconds = round(self._clock() - started_at, 1)
        log.info("downloaded", extra=fields(source=self._remote.label, seconds=seconds))

    async def _attempt(self) -> None:
        """Complete the partial file, from one first response.

        Raises DownloadInterruptedError, FileChangedError and RangesUnsupportedError where another attempt can help.
        """
        part = self._part
        if part.done and not (part.validator or self._remote.sha256):
            part.discard()  # nothing could detect a mixture of two versions
        gap = next(gaps(part.done, part.size), None)
        if gap is None:
            self._checked_size(part.size)
            return  # killed between the last byte and the rename
        start, end = gap
        requested_end: int | None = None  # the end of the file
        if self._job.connections > 1:
            requested_end = min(end, start + self._job.tuning.segment_bytes)
        elif part.size:
            requested_end = end
        headers = range_headers(start, requested_end, part.validator) if self._ranged else {}
        async with self._source.get(headers) as response:
            errors.check_published(self._remote, self._source.published_sha256)
            match read_response(response.status, response.headers):
                case FullContent(total, validator):
                    await self._receive_full(response, self._checked_size(total), validator)
                case PartialContent(first, _, total, validator) if self._ranged and first == start:
                    await self._receive_ranges(response, total, validator)
                case RangeNotSatisfiable(total) if self._ranged and part.done and total == prefix_length(part.done):
                    part.allocate(part.validator, total)
                case RangeNotSatisfiable() if self._ranged and part.done:
                    raise FileChangedError
                case ErrorResponse() as refusal:
                    message = await error_message(response, self._job.tuning.message_timeout)
                    raise self._refused(ErrorStatusError(refusal, message))
                case _ if self._ranged:
                    raise RangesUnsupportedError
                case _:
                    raise errors.invalid_response(self._remote.label, "the response has another range than requested")

    async def _receive_full(self, response: ClientResponse, total: int | None, validator: str) -> None:
        async with aclosing(await self._checked_body(response, 0)) as opened:
            self._start_over(validator, total)
            tracker = SegmentTracker(total)
            work = self._workers(tracker).receive(tracker.first(self._clock()), opened)
            await self._background.during([work], tracker)
        if total is None:
            tracker.seal()
        if not tracker.complete:
            raise DownloadInterruptedError(f"only {tracker.bytes_done} of {total} bytes were received")

    async def _receive_ranges(self, response: ClientResponse, total: int, validator: str) -> None:
        part, known = self._part, self._part.validator
        if part.size not in (None, total) or (known and validator and known != validator):
            raise FileChangedError
        if not validator and not self._remote.sha256:
            raise RangesUnsupportedError
        self._checked_size(total)
        min_bytes = self._job.tuning.segment_bytes
        tracker = SegmentTracker(total, part.done, connections=self._job.connections, min_bytes=min_bytes)
        segment = tracker.first(self._clock())
        async with aclosing(await self._checked_body(response, segment.start)) as opened:
            if part.done:
                part.allocate(known or validator, total)
            else:
                self._start_over(validator, total)
            workers = self._workers(tracker)
            others = min(self._job.connections - 1, tracker.bytes_pending // min_bytes)
            work = [workers.work((segment, opened)), *(workers.work() for _ in range(others))]
            try:
                await self._background.during(work, tracker)
            except DownloadInterruptedError as error:
                raise self._unreachable(error) from error
            except ErrorStatusError as error:
                raise self._refused(error) from error

    def _workers(self, tracker: SegmentTracker) -> DownloadWorkers:
        return DownloadWorkers(self._source, tracker, self._part.validator, self._background.write, self._job.tuning)

    def _start_over(self, validator: str, total: int | None) -> None:
        self._part.restart(validator, total)
        self._background.reset_digest()
        self._resumed = False

    def _checked_size(self, total: int | None) -> int | None:
        """Return the size, sent or expected. Raises ModelError when the two differ."""
        expected = self._remote.size
        if expected is not None and total is not None and expected != total:
            self._part.discard()
            raise errors.invalid_response(self._remote.label, f"the file has {total} bytes, not {expected} as expected")
        return expected if total is None else total

    async def _checked_body(self, response: ClientResponse, start: int) -> AsyncGenerator[bytes, None]:
        """Return the body, which starts at `start` of the file, after checking that a file starts with GGUF's magic."""
        chunks, first_bytes = body(response), b""
        while start == 0 and len(first_bytes) < len(MAGIC):
            chunk = await anext(chunks, b"")
            first_bytes += chunk
            if not chunk or not first_bytes.startswith(MAGIC[: len(first_bytes)]):
                raise errors.not_gguf(self._remote.label, response.headers.get("Content-Type", ""))

        async def complete_body() -> AsyncGenerator[bytes, None]:
            async with aclosing(chunks):
                if first_bytes:
                    yield first_bytes
                async for chunk in chunks:
                    yield chunk

        return complete_body()

    async def _verify_and_finish(self) -> bool:
        """Verify and rename the complete file; False when bytes of an earlier process were corrupt: now discarded."""
        expected = self._remote.sha256
        if expected:
            found = await self._background.digest_of(covered(self._part.done), self._remote.label)
            if found != expected:
                self._part.discard()
                if not self._resumed:
                    raise errors.wrong_digest(self._remote.label, found, expected)
                log.warning("the partial download is corrupt, restarting it", extra=fields(sha256=found))
                return False
        await self._background.in_thread(self._part.finish)
        return True

    def _unreachable(self, error: DownloadInterruptedError) -> Exception:
        return errors.interrupted(self._remote, error)

    def _refused(self, error: ErrorStatusError) -> Exception:
        return errors.refused(self._remote, error.status, error.message, error.retry_after)
