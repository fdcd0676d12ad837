"""RunDir.crashes: when and how each program exited unexpectedly. The listener counts restarts by it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_gguf.atomic_file import write_private_json

_MAX_CRASHES = 500


@dataclass(frozen=True, slots=True)
class Crash:
    """One unexpected exit."""

    program: str
    pid: int
    at: float  # epoch seconds
    code: int | None
    signal: str | None
    mitigated: bool = False  # the next start avoided the cause, so it does not count towards giving up


class CrashFile:
    """Stores crashes, so that a restart of the listener itself loses none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Crash]:
        """Return all crashes, oldest first; none where the file is missing or damaged."""
        try:
            return [Crash(**item) for item in json.loads(self._path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def add(self, crash: Crash) -> list[Crash]:
        """Record `crash` once (supervisord repeats an event that its listener did not acknowledge); return all."""
        crashes = self.read()
        if any((known.program, known.pid) == (crash.program, crash.pid) for known in crashes):
            return crashes
        crashes = [*crashes, crash][-_MAX_CRASHES:]
        write_private_json([asdict(item) for item in crashes], self._path)
        return crashes
