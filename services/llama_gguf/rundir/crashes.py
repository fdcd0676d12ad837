"""RunDir.crashes: when and how each program ended unasked. The listener's memory, and the count of restarts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_gguf.atomic_file import write_private_json

_KEPT = 500


@dataclass(frozen=True, slots=True)
class Crash:
    """One end that nobody asked for."""

    program: str
    pid: int
    at: float  # epoch seconds
    code: int | None
    signal: str | None
    healed: bool = False  # the next start avoided the cause, so it does not count towards giving up


class CrashFile:
    """Remembers crashes across a restart of the listener itself."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Crash]:
        """Return all crashes, oldest first; a missing or damaged file holds none."""
        try:
            return [Crash(**item) for item in json.loads(self._path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def add(self, crash: Crash) -> list[Crash]:
        """Record `crash`, once (supervisord repeats an event that its listener did not live to answer); return all."""
        crashes = self.read()
        if any((known.program, known.pid) == (crash.program, crash.pid) for known in crashes):
            return crashes
        crashes = [*crashes, crash][-_KEPT:]
        write_private_json([asdict(item) for item in crashes], self._path)
        return crashes
