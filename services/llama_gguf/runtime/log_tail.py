"""The last lines of a program's log, and the error and hint that it wrote before it exited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llama_gguf.logs import clean
from llama_gguf.rundir.exits import read_tails

TAIL_LINES = 40
_TAIL_BYTES = 65_536


def tail_lines(path: Path, count: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log, control characters replaced; none where it cannot be read."""
    return [clean(line) for line in read_tails((path,), _TAIL_BYTES).splitlines() if line.strip()][-count:]


def last_error(tail: Sequence[str]) -> str:
    """Return the last error that one of our programs wrote, otherwise the last line."""
    for line in reversed(tail):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return tail[-1] if tail else ""


def last_hint(tail: Sequence[str]) -> str:
    """Return the last hint that one of our programs wrote, or ""."""
    return next((line.removeprefix("hint: ") for line in reversed(tail) if line.startswith("hint: ")), "")
