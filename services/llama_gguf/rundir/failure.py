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
"""Lines of the log that `up` prints: with cause and fix they fit on a screen. The record has more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One program that could not stay up, why, and what to do about it."""

    program: str
    exit_code: int | None  # of the program; None where a signal terminated it, or it never ran
    signal: str | None
    summary: str
    cause: str
    fix: str
    log_tail: tuple[str, ...]
    at: float  # epoch seconds
    exit_status: int = ExitCode.UNAVAILABLE  # what `up` exits with


def write(failure: Failure, path: Path) -> None:
    """Write `failure` atomically."""
    write_private_json(asdict(failure), path, indent=1)


def read(path: Path) -> Failure | None:
    """Return the recorded failure, None where there is none or it is unusable."""
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

    `columns` is the width of a terminal: longer lines are wrapped, those of the log truncated. `seen` says which of a
    program's log lines it shows already; they are not repeated, nor are those that cause and fix repeat.
    """
    repeated = {failure.cause, f"error: {failure.cause}", f"hint: {failure.fix}"}
    tail = [line for line in failure.log_tail if line not in repeated and not seen(failure.program, line)]
    lines = _wrapped("llama-gguf: ", failure.summary, columns)
    if failure.cause:
        lines += _wrapped("  cause: ", failure.cause, columns)
    if failure.fix:
        lines += _wrapped("  fix: ", failure.fix, columns)
    if tail:
        lines.append(f"  last output of {failure.program}" + (f" ({log}):" if log else ":"))
        lines += [_truncated(f"    {line}", columns) for line in tail[-_LINES_SHOWN:]]
    elif failure.log_tail and log:
        lines.append(f"  log of {failure.program}: {log}")
    return "\n".join(lines) + "\n"


def _wrapped(label: str, text: str, columns: int | None) -> list[str]:
    if columns is None or len(label) + len(text) <= columns:
        return [label + text]
    # Users copy paths and commands, so words are never broken.
    return textwrap.wrap(
        text,
        columns,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _truncated(line: str, columns: int | None) -> str:
    return line if columns is None or len(line) <= columns else line[: columns - 3] + "..."
