"""Why the appliance gave up: the value in RunDir.failure, and its text for people."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_gguf.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Failure:
    """One program that could not stay up, why, and what to do about it."""

    program: str
    exit_code: int | None  # of the program; None when a signal ended it, or it never ran
    signal: str | None
    summary: str
    cause: str
    fix: str
    log_tail: tuple[str, ...]
    at: float  # epoch seconds
    exit_status: int = ExitCode.UNAVAILABLE  # what `up` exits with


def write(failure: Failure, path: Path) -> None:
    """Write `failure` atomically, for `up`, the health server and people to read."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(failure), file, indent=1)
    temporary.replace(path)


def read(path: Path) -> Failure | None:
    """Return the recorded failure, or None when there is none or it is unreadable."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["log_tail"] = tuple(values["log_tail"])
        return Failure(**values)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def render(failure: Failure, log: Path | None = None) -> str:
    """Return the failure as several lines for stderr."""
    lines = [f"llama-gguf: {failure.summary}"]
    if failure.cause:
        lines.append(f"  cause: {failure.cause}")
    if failure.fix:
        lines.append(f"  fix: {failure.fix}")
    if failure.log_tail:
        place = f" ({log})" if log else ""
        lines.append(f"  last output of {failure.program}{place}:")
        lines += [f"    {line}" for line in failure.log_tail]
    return "\n".join(lines) + "\n"
