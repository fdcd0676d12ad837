"""Progress of a long build, from the build tool's output: a bar on a terminal, otherwise a line every few seconds.

Ninja prints `[12/511] …`, make `[ 12%] …`; both are parsed.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\]")
_MAKE = re.compile(r"^\s*\[\s*(\d+)%\]")
PLAIN_INTERVAL_SECONDS = 5.0

_Kind = type[BaseException] | None


def parse_step(line: str) -> tuple[int, int] | None:
    """Return (done, total) where `line` reports progress."""
    if match := _NINJA.match(line):
        return int(match[1]), int(match[2])
    if match := _MAKE.match(line):
        return int(match[1]), 100
    return None


def clock(seconds: float) -> str:
    """Return `seconds` as m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Reporter(Protocol):
    """Shows the progress of a build."""

    def __enter__(self) -> Reporter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step(self, done: int, total: int) -> None:
        """Record that `done` of `total` steps are finished."""

    def tick(self) -> None:
        """Called about once a second, whether or not anything happened."""


class BarReporter:
    """A rich progress bar."""

    def __init__(self, title: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn())
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self) -> BarReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, total=total)

    def tick(self) -> None:
        """Do nothing: rich redraws automatically."""


class LineReporter:
    """A plain line every few seconds, for logs and pipes."""

    def __init__(self, title: str, write: Callable[[str], object], now: Callable[[], float] = time.monotonic) -> None:
        self._title, self._write, self._now = title, write, now
        self._started = now()
        self._written_at = self._started - PLAIN_INTERVAL_SECONDS
        self._state: tuple[int, int] | None = None

    def __enter__(self) -> LineReporter:
        self.tick()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(f"{self._title}: {'aborted' if error else 'done'} after {clock(self._now() - self._started)}\n")

    def step(self, done: int, total: int) -> None:
        """Record the progress; `tick` prints it."""
        self._state = (done, total)

    def tick(self) -> None:
        """Write a line if the last one is old enough."""
        now = self._now()
        if now - self._written_at < PLAIN_INTERVAL_SECONDS:
            return
        self._written_at = now
        elapsed = now - self._started
        if self._state is None:
            self._write(f"{self._title}: preparing, {clock(elapsed)} elapsed\n")
            return
        done, total = self._state
        left = f", about {clock(elapsed * (total - done) / done)} left" if done else ""
        self._write(f"{self._title}: {done}/{total} ({100 * done // total} %), {clock(elapsed)} elapsed{left}\n")


def reporter(title: str) -> Reporter:
    """Return the reporter that fits standard error."""
    if sys.stderr.isatty():
        return BarReporter(title)

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return LineReporter(title, write)
