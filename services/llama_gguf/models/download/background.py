"""What goes on beside the connections of a download: digest, notes and progress, and the threads that touch the disk.

A task that is cancelled waits for its thread, so that nobody reads or writes a file that was let go of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from llama_gguf.models.checksum import FrontDigest
from llama_gguf.models.download.partial_file import Part
from llama_gguf.models.download.segments import Ledger, front
from llama_gguf.models.model_files import Reporter

T = TypeVar("T")

_TICK_SECONDS = 0.1
_DIGEST_STEP_BYTES = 64 * 1024 * 1024


class Upkeep:
    """Looks after one part. `digested` says whether anybody wants the digest."""

    def __init__(
        self, part: Part, reporter: Reporter, pool: ThreadPoolExecutor, *, digested: bool, note_seconds: float
    ) -> None:
        self._part = part
        self._reporter = reporter
        self._pool = pool
        self._digested = digested
        self._note_seconds = note_seconds
        self._digest = FrontDigest(part.read_into)

    def begin_anew(self) -> None:
        """Forget what was digested: the part has been started over."""
        self._digest = FrontDigest(self._part.read_into)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Return what `function` returns in a thread."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def write(self, chunks: list[bytes], position: int) -> None:
        """Write into the part."""
        await self.in_thread(partial(self._part.write, chunks, position))

    async def during(self, work: Sequence[Coroutine[None, None, None]], ledger: Ledger) -> None:
        """Wait until one of `work` ends, and stop the others. What came is noted however it ends."""
        workers = {asyncio.create_task(one) for one in work}
        beside = (self._follow(ledger), self._keep_notes(ledger), self._tell(ledger))
        tasks = workers | {asyncio.create_task(one) for one in beside}
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
            with suppress(OSError):  # what ended the work says more, and finishing the part syncs it again
                await self.in_thread(partial(self._part.save, ledger.spans()))
            self._reporter.progress(ledger.bytes_done, ledger.size)

    async def digest_of(self, size: int, label: str) -> str:
        """Return the SHA-256 of the part, which is complete."""
        if size - self._digest.position > _DIGEST_STEP_BYTES:
            self._reporter.phase("verifying", f"checking the SHA-256 of {label}")
        while self._digest.position < size:
            await self._go_on_to(size)
            self._reporter.progress(self._digest.position, size)
        return self._digest.hexdigest()

    async def _go_on_to(self, position: int) -> None:
        step = min(position, self._digest.position + _DIGEST_STEP_BYTES)
        await self.in_thread(partial(self._digest.follow, step))

    async def _follow(self, ledger: Ledger) -> None:
        while True:
            there = front(ledger.spans()) if self._digested else 0
            if there > self._digest.position:
                await self._go_on_to(there)
            else:
                await asyncio.sleep(_TICK_SECONDS)

    async def _keep_notes(self, ledger: Ledger) -> None:
        while True:
            await asyncio.sleep(self._note_seconds)
            await self.in_thread(partial(self._part.save, ledger.spans()))

    async def _tell(self, ledger: Ledger) -> None:
        while True:
            self._reporter.progress(ledger.bytes_done, ledger.size)
            await asyncio.sleep(_TICK_SECONDS)
