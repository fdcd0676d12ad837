"""What runs beside the connections of a download: digest, sidecar and progress, and the threads that do disk I/O.

A task that is cancelled waits for its thread, so that no thread reads or writes a closed file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from llama_gguf.models.checksum import PrefixDigest
from llama_gguf.models.download.partial_file import PartialFile
from llama_gguf.models.download.segments import SegmentTracker, prefix_length
from llama_gguf.models.model_files import Reporter
from llama_gguf.states import Phase

T = TypeVar("T")

_POLL_SECONDS = 0.1
_DIGEST_STEP_BYTES = 64 * 1024 * 1024


class BackgroundWork:
    """Digest, sidecar and progress of one partial file. `digested`: whether the SHA-256 is needed."""

    def __init__(
        self, part: PartialFile, reporter: Reporter, pool: ThreadPoolExecutor, *, digested: bool, save_seconds: float
    ) -> None:
        self._part = part
        self._reporter = reporter
        self._pool = pool
        self._digested = digested
        self._save_seconds = save_seconds
        self._digest = PrefixDigest(part.read_into)

    def reset_digest(self) -> None:
        """Start the digest again: the file has been restarted."""
        self._digest = PrefixDigest(self._part.read_into)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Return what `function` returns in a thread."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def write(self, chunks: list[bytes], position: int) -> None:
        """Write into the file."""
        await self.in_thread(partial(self._part.write, chunks, position))

    async def during(self, work: Sequence[Coroutine[None, None, None]], tracker: SegmentTracker) -> None:
        """Wait until one of `work` ends, and cancel the others. The progress is saved however it ends."""
        workers = {asyncio.create_task(one) for one in work}
        background = (self._update_digest(tracker), self._save_periodically(tracker), self._report_progress(tracker))
        tasks = workers | {asyncio.create_task(one) for one in background}
        try:
            ended: set[asyncio.Task[None]] = set()
            while not ended & workers:
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(OSError):  # what ended the work is more informative, and finishing the file syncs it again
                await self.in_thread(partial(self._part.save, tracker.spans()))
            self._reporter.progress(tracker.bytes_done, tracker.size)

    async def digest_of(self, size: int, label: str) -> str:
        """Return the SHA-256 of the file, which is complete."""
        if size - self._digest.position > _DIGEST_STEP_BYTES:
            self._reporter.phase(Phase.VERIFYING, f"checking the SHA-256 of {label}")
        while self._digest.position < size:
            await self._digest_to(size)
            self._reporter.progress(self._digest.position, size)
        return self._digest.hexdigest()

    async def _digest_to(self, position: int) -> None:
        end = min(position, self._digest.position + _DIGEST_STEP_BYTES)
        await self.in_thread(partial(self._digest.update_to, end))

    async def _update_digest(self, tracker: SegmentTracker) -> None:
        while True:
            available = prefix_length(tracker.spans()) if self._digested else 0
            if available > self._digest.position:
                await self._digest_to(available)
            else:
                await asyncio.sleep(_POLL_SECONDS)

    async def _save_periodically(self, tracker: SegmentTracker) -> None:
        while True:
            await asyncio.sleep(self._save_seconds)
            await self.in_thread(partial(self._part.save, tracker.spans()))

    async def _report_progress(self, tracker: SegmentTracker) -> None:
        while True:
            self._reporter.progress(tracker.bytes_done, tracker.size)
            await asyncio.sleep(_POLL_SECONDS)
