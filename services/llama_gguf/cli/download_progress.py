"""How the progress of downloads and checksums is shown by commands: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from llama_gguf.cli.plan.view import human
from llama_gguf.models.model_files import Reporter
from llama_gguf.models.progress import LINE_SECONDS, Meter
from llama_gguf.states import Phase


@contextmanager
def reporting(console: Console) -> Iterator[Reporter]:
    """Yield a reporter: a progress bar on a terminal, otherwise a line every few seconds."""
    if not console.is_terminal:
        yield Lines(lambda line: console.print(Text(line)))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)


class Bar:
    """Shows a progress bar for the current step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("looking", total=None)

    def phase(self, phase: Phase, detail: str) -> None:
        """Begin a new step."""
        self._progress.reset(self._task, total=None, description=f"{phase}: {detail}")

    def progress(self, done: int, total: int | None) -> None:
        """Update the bar."""
        self._progress.update(self._task, completed=done, total=total)


class Lines:
    """Writes a line for each step, and one every few seconds while bytes move."""

    def __init__(self, write: Callable[[str], None], *, tick: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._tick = tick
        self._meter = Meter(tick)
        self._last = tick()

    def phase(self, phase: Phase, detail: str) -> None:
        """Write the step."""
        self._write(f"{phase}: {detail}")
        self._meter.restart()
        self._last = self._tick()

    def progress(self, done: int, total: int | None) -> None:
        """Write the progress, if the last line is old enough."""
        found = self._meter.measure(done, total)
        if self._tick() - self._last < LINE_SECONDS:
            return
        self._last = self._tick()
        self._write(f"  {human(done)} of {human(total)}: {found}" if total else f"  {found}")
