"""Why the appliance gave up: the value in RunDir.failure, and its text for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_gguf.atomic_file import write_private_json
from llama_gguf.errors import ExitCode

_LINES_SHOWN = 12
"""Of the log, to people: with the cause and the fix it fits on a screen. The record holds more, the log file all."""


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
    write_private_json(asdict(failure), path, indent=1)


def read(path: Path) -> Failure | None:
    """Return the recorded failure, or None when there is none or it is unreadable."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["log_tail"] = tuple(values["log_tail"])
        failure = Failure(**values)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    texts = (failure.program, failure.summary, failure.cause, failure.fix)
    return failure if all(isinstance(text, str) for text in texts) else None


def render(
    failure: Failure,
    log: Path | None = None,
    *,
    columns: int | None = None,
    seen: Callable[[str, str], bool] = lambda _program, _line: False,
) -> str:
    """Return the failure as several lines for stderr: what, cause, fix, and the last lines of the program's log.

    `columns` is the width of a terminal: longer lines are wrapped, those of the log cut. `seen` tells which of a
    program's log lines stand on it already; they are not repeated, nor is what the cause and the fix say.
    """
    said = {failure.cause, f"error: {failure.cause}", f"hint: {failure.fix}"}
    tail = [line for line in failure.log_tail if line not in said and not seen(failure.program, line)]
    lines = _wrapped("llama-gguf: ", failure.summary, columns)
    if failure.cause:
        lines += _wrapped("  cause: ", failure.cause, columns)
    if failure.fix:
        lines += _wrapped("  fix: ", failure.fix, columns)
    place = f" ({log})" if log else ""
    if tail:
        lines.append(f"  last output of {failure.program}{place}:")
        lines += [_cut(f"    {line}", columns) for line in tail[-_LINES_SHOWN:]]
    elif failure.log_tail and log:
        lines.append(f"  log of {failure.program}: {log}")
    return "\n".join(lines) + "\n"


def _wrapped(label: str, text: str, columns: int | None) -> list[str]:
    if columns is None or len(label) + len(text) <= columns:
        return [label + text]
    # Paths and commands are there to be copied, so words are never broken.
    return textwrap.wrap(
        text,
        columns,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _cut(line: str, columns: int | None) -> str:
    return line if columns is None or len(line) <= columns else line[: columns - 3] + "..."
