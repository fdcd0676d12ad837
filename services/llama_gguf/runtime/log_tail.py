"""The last lines of a program's log, and what it said itself about its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llama_gguf.logs import clean
from llama_gguf.rundir.exits import read_tails

TAIL_LINES = 40
_TAIL_BYTES = 65_536


def tail_lines(path: Path, count: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log, control characters replaced; none when it can't be read."""
    return [clean(line) for line in read_tails((path,), _TAIL_BYTES).splitlines() if line.strip()][-count:]


def last_error(tail: Sequence[str]) -> str:
    """Return the last line that states an error, as our programs write it, else the very last line."""
    for line in reversed(tail):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return tail[-1] if tail else ""


def last_hint(tail: Sequence[str]) -> str:
    """Return the last hint that a program of ours gave, or nothing."""
    return next((line.removeprefix("hint: ") for line in reversed(tail) if line.startswith("hint: ")), "")
