"""RunDir.engine_state: what the engine program does before llama-server answers, for health and `status` to read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from llama_gguf.atomic_file import write_private_json
from llama_gguf.models.model_files import Phase
from llama_gguf.rundir.notices import Notice, notices_as_data

_MIN_INTERVAL_SECONDS = 0.5


class StateFile:
    """Writes the state file, each time whole and by rename; progress of a step at once, then twice a second.

    `model` is the name clients know it by, for answers to strangers; the details may hold paths and addresses.
    """

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
        self._state: dict[str, object] = {}
        self._notices: list[Notice] = []
        self._written_at = 0.0  # of `tick`

    def phase(self, phase: Phase, detail: str) -> None:
        """Record that a new step begins."""
        self._state = {
            "phase": phase,
            "model": self._model,
            "detail": detail,
            "bytes_done": None,
            "bytes_total": None,
            "since": self._clock(),
            "pid": os.getpid(),
            "warnings": notices_as_data(self._notices),
        }
        self._write()
        self._written_at = -_MIN_INTERVAL_SECONDS  # so that the first progress, with its total, is told at once

    def progress(self, done: int, total: int | None) -> None:
        """Record how far the step is."""
        finished = total is not None and done >= total
        if not self._state or (self._tick() - self._written_at < _MIN_INTERVAL_SECONDS and not finished):
            return
        self._state |= {"bytes_done": done, "bytes_total": total}
        self._write()

    def warn(self, notice: Notice) -> None:
        """Record a warning that stands for as long as this engine runs; the next step's record has it."""
        self._notices.append(notice)

    def _write(self) -> None:
        write_private_json(self._state, self._path)
        self._written_at = self._tick()
