"""RunDir.engine_phase: what the engine's program is doing before llama-server responds.

Written by that program; read by the gateway, the health server and commands.
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
    """One phase of the engine's program. `detail` can hold paths and URLs, so it is not public."""

    phase: Phase
    model: str = ""  # its name for clients
    detail: str = ""
    bytes_done: int | None = None
    bytes_total: int | None = None
    since: float = 0.0  # epoch seconds
    pid: int = 0
    warnings: tuple[Notice, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON values: the content of the file, which `status --json` shows too."""
        return asdict(self)


class PhaseFile:
    """Writes the file, atomically; the first progress of a phase immediately, then at most twice a second."""

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
        """Record that a new phase begins."""
        now, pid = self._clock(), os.getpid()
        self._write(EnginePhase(phase, self._model, detail, since=now, pid=pid, warnings=self._warnings))
        self._written_at = -_MIN_INTERVAL_SECONDS  # so that the first progress, with its total, is written immediately

    def progress(self, done: int, total: int | None) -> None:
        """Record the progress of the phase."""
        finished = total is not None and done >= total
        if self._current is None or (self._tick() - self._written_at < _MIN_INTERVAL_SECONDS and not finished):
            return
        self._write(replace(self._current, bytes_done=done, bytes_total=total))

    def warn(self, notice: Notice) -> None:
        """Add a warning that stays for as long as this engine runs; the next phase's record has it."""
        self._warnings += (notice,)

    def _write(self, record: EnginePhase) -> None:
        self._current = record
        write_private_json(record.as_data(), self._path)
        self._written_at = self._tick()


def read(path: Path) -> EnginePhase | None:
    """Return the last record, None where there is none or it is unusable; a field of a wrong type counts as absent."""
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
