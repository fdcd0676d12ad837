"""Logging set-up, called by program mains only: JSON lines or text, one line an event, to stdout.

Owns the two formatters, and the `error:` and `hint:` lines of a program that exits, which the listener reads. A
log line is a fact with fields: `log.info("engine ready", extra=fields(load_seconds=4.2))`. Control characters never
reach a line, so no value can forge one.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO

from .timestamps import utc_text

_REORDERING = r"\u202a-\u202e\u2066-\u2069"  # shows a line in another order than it has
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSAFE = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029{_REORDERING}\ud800-\udfff]")
_NOT_ESCAPED_BY_JSON = re.compile(rf"[\x7f-\x9f\u2028\u2029{_REORDERING}\ud800-\udfff]")
_TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+Z \| (?P<level>[A-Z]+) \| (?P<program>[a-z]+) \| ")
_STRUCTURED_FIELDS = re.compile(r" (?:\| )?\w+=[\[{].*", re.DOTALL)
_FATAL_PREFIXES = ("error: ", "hint: ")


def fields(**values: object) -> dict[str, Any]:
    """Wrap structured values for a logging call's `extra=`."""
    return {"fields": values}


def clean(text: str) -> str:
    """Return `text` with `?` for what could forge a line, move the cursor, reorder what is shown, or not be UTF-8."""
    return _UNSAFE.sub("?", text)


def has_control_characters(text: str) -> bool:
    """Return whether `text` has newlines, escapes, C1 or line separators."""
    return _CONTROL.search(text) is not None


def escape_for_json(text: str) -> str:
    """Return JSON with escapes for what `json.dumps` leaves as it is and a terminal or a reader of lines does not."""
    return _NOT_ESCAPED_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ts, level, program, event, then the fields."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": utc_text(record.created, "milliseconds"),
            "level": record.levelname.lower(),
            "program": self._program,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return escape_for_json(json.dumps(line, ensure_ascii=False, default=str))


class TextFormatter(logging.Formatter):
    """`ts | LEVEL | program | event | k=v k=v`, control characters replaced, then passed through `shape`."""

    def __init__(self, program: str, shape: Callable[[str], str] = str) -> None:
        super().__init__()
        self._program = program
        self._shape = shape

    def format(self, record: logging.LogRecord) -> str:
        parts = [utc_text(record.created, "milliseconds"), record.levelname, self._program, clean(record.getMessage())]
        extra = getattr(record, "fields", {})
        if extra:
            parts.append(" ".join(f"{key}={clean(str(value))}" for key, value in extra.items()))
        text = self._shape(" | ".join(parts))
        if record.exc_info:
            # Indented: an exception's message can have newlines, and what follows one must not look like a log line.
            text += "".join(f"\n  {clean(line)}" for line in self.formatException(record.exc_info).split("\n"))
        return text


def configure(
    program: str,
    *,
    format: Literal["text", "json"],  # noqa: A002 - the setting's name
    level: str,
    stream: TextIO | None = None,
    shape: Callable[[str], str] = str,
) -> None:
    """Send every log record of this process to `stream` (default stdout) in the chosen format.

    `shape` is applied to each line of the text format.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(program) if format == "json" else TextFormatter(program, shape))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def report_fatal(message: str, hint: str) -> None:
    """Write to stderr why a program exits: an `error:` line, and a `hint:` line where there is one."""
    sys.stderr.write(f"error: {clean(message)}\n" + (f"hint: {clean(hint)}\n" if hint else ""))


def is_own_line(line: str) -> bool:
    """Return whether one of our programs wrote `line`: a log line in text, or a line of `report_fatal`."""
    return _TEXT_LINE.match(line) is not None or line.startswith(_FATAL_PREFIXES)


def shorten(line: str, columns: int) -> str:
    """Return a log line in text shortened for a terminal: one row of `columns`, without lists and objects.

    Warnings and errors are not shortened, because the hint is at their end; except the listener's error, because the
    failure is printed in full at the end. A line that is not our own is unchanged.
    """
    found = _TEXT_LINE.match(line)
    if found is None:
        return line
    if found["level"] in {"WARNING", "CRITICAL"} or (found["level"] == "ERROR" and found["program"] != "listener"):
        return line
    line = _STRUCTURED_FIELDS.sub("", line)
    return line if len(line) <= columns else line[: columns - 3] + "..."
