"""How fast a step goes, and when it ends: speed over the last seconds, time left, and both as log lines.

Speed counts only bytes that moved during this step: what an earlier process had downloaded is not speed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from llama_gguf.logs import fields
from llama_gguf.models.model_files import Reporter
from llama_gguf.states import Phase

log = logging.getLogger(__name__)

LINE_SECONDS = 5.0
_WINDOW_SECONDS = 30.0
_MAX_SAMPLES = 64
_MIB = 1024 * 1024
_LONG = {Phase.DOWNLOADING, Phase.VERIFYING}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is; None and 0.0 for what is not known."""

    done: int
    total: int | None
    bytes_per_second: float

    @property
    def percent(self) -> float | None:
        """The part that is done."""
        return 100.0 * self.done / self.total if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at this speed."""
        if self.total is None or not self.bytes_per_second:
            return None
        return max(0, self.total - self.done) / self.bytes_per_second

    def __str__(self) -> str:
        """Return it for people, short enough for a log line on a narrow terminal."""
        percent, left = self.percent, self.seconds_left
        parts = [f"{self.done / _MIB:.0f} MiB" if percent is None else f"{percent:.0f}%"]
        if self.bytes_per_second:
            speed = self.bytes_per_second / _MIB
            parts.append(f"{speed:.0f} MiB/s" if speed >= 10 else f"{speed:.1f} MiB/s")
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Meter:
    """Computes the progress of one step after the other."""

    def __init__(self, tick: Callable[[], float] = time.monotonic) -> None:
        self._tick = tick
        self._samples: deque[tuple[float, int]] = deque(maxlen=_MAX_SAMPLES)

    def restart(self) -> None:
        """Begin a new step."""
        self._samples.clear()

    def measure(self, done: int, total: int | None) -> Progress:
        """Return the progress with `done` bytes done now."""
        now = self._tick()
        if self._samples and done < self._samples[-1][1]:  # the step has started again
            self._samples.clear()
        if not self._samples or now - self._samples[-1][0] >= _WINDOW_SECONDS / _MAX_SAMPLES:
            self._samples.append((now, done))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _WINDOW_SECONDS:
            self._samples.popleft()
        began_at, before = self._samples[0]
        elapsed = now - began_at
        return Progress(done, total, (done - before) / elapsed if elapsed > 0 else 0.0)


class LoggedProgress:
    """Passes each report on, and logs the progress of downloads and checksums every few seconds."""

    def __init__(self, reporter: Reporter, *, tick: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._tick = tick
        self._meter = Meter(tick)
        self._phase: Phase | None = None
        self._detail = ""
        self._last = tick()

    def phase(self, phase: Phase, detail: str) -> None:
        """Begin a new step."""
        self._reporter.phase(phase, detail)
        self._meter.restart()
        self._phase, self._detail, self._last = phase, detail, self._tick()
        if phase in _LONG:
            log.info(str(phase), extra=fields(source=detail))

    def progress(self, done: int, total: int | None) -> None:
        """Pass it on; log it if the last line is old enough."""
        self._reporter.progress(done, total)
        found = self._meter.measure(done, total)
        if self._phase not in _LONG or self._tick() - self._last < LINE_SECONDS:
            return
        self._last = self._tick()
        left = found.seconds_left
        log.info(
            str(found),
            extra=fields(
                phase=str(self._phase),
                source=self._detail,
                bytes_done=done,
                bytes_total=total,
                bytes_per_second=round(found.bytes_per_second),
                seconds_left=None if left is None else round(left),
            ),
        )
