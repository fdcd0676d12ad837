"""RunDir.engine_phase: what the engine's program does before llama-server answers.

Written by that program, each time whole; read by whoever judges or shows the engine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llama_gguf.atomic_file import write_private_json
from llama_gguf.states import Phase

from .notices import Notice, read_notices

_MIN_INTERVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class EnginePhase:
    """One step of the engine's program. `detail` may hold paths and URLs, so strangers are not told it."""

    phase: Phase
    model: str = ""  # the name clients know it by
    detail: str = ""
    bytes_done: int | None = None
    bytes_total: int | None = None
    since: float = 0.0  # epoch seconds
    pid: int = 0
    warnings: tuple[Notice, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON values: the file's form, which `status --json` shows too."""
        return asdict(self)


class PhaseFile:
    """Writes the file, each time whole and by rename; progress of a step at once, then twice a second."""

    def __init__(
        self,
        path: Path,
        model: str,
        *,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._model = model
        self._clock = clock
        self._tick = tick
        self._current: EnginePhase | None = None
        self._warnings: tuple[Notice, ...] = ()
        self._written_at = 0.0  # of `tick`

    def phase(self, phase: Phase, detail: str) -> None:
        """Record that a new step begins."""
        now, pid = self._clock(), os.getpid()
        self._write(EnginePhase(phase, self._model, detail, since=now, pid=pid, warnings=self._warnings))
        self._written_at = -_MIN_INTERVAL_SECONDS  # so that the first progress, with its total, is told at once

    def progress(self, done: int, total: int | None) -> None:
        """Record how far the step is."""
        finished = total is not None and done >= total
        if self._current is None or (self._tick() - self._written_at < _MIN_INTERVAL_SECONDS and not finished):
            return
        self._write(replace(self._current, bytes_done=done, bytes_total=total))

    def warn(self, notice: Notice) -> None:
        """Record a warning that stands for as long as this engine runs; the next step's record has it."""
        self._warnings += (notice,)

    def _write(self, record: EnginePhase) -> None:
        self._current = record
        write_private_json(record.as_data(), self._path)
        self._written_at = self._tick()


def read(path: Path) -> EnginePhase | None:
    """Return what was written last, None when that is nothing usable; a field of another type counts as left out."""
    try:
        found = json.loads(path.read_bytes())
        phase = Phase(found["phase"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    since = found.get("since")
    return EnginePhase(
        phase,
        str(found.get("model") or ""),
        str(found.get("detail") or ""),
        _integer(found.get("bytes_done")),
        _integer(found.get("bytes_total")),
        float(since) if isinstance(since, int | float) else 0.0,
        _integer(found.get("pid")) or 0,
        read_notices(found.get("warnings")),
    )


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None
