"""Logging set-up, called by program mains only: JSON lines or text, one line an event, to stdout.

Owns the two formatters, and the form of a program's last words, which the fatal listener and the diagnosis read. A
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

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LEFT_BY_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+Z \| (?P<level>[A-Z]+) \| (?P<program>[a-z]+) \| ")
_FOR_MACHINES = re.compile(r" (?:\| )?\w+=[\[{].*", re.DOTALL)
_LAST_WORDS = ("error: ", "hint: ")


def fields(**values: object) -> dict[str, Any]:
    """Wrap structured values for a logging call's `extra=`."""
    return {"fields": values}


def clean(text: str) -> str:
    """Return `text` with control characters (newlines, escapes, C1, line separators) replaced by `?`."""
    return _CONTROL.sub("?", text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, program, event, then the fields."""

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
        text = json.dumps(line, ensure_ascii=False, default=str)
        return _LEFT_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class TextFormatter(logging.Formatter):
    """`ts | LEVEL | program | event | k=v k=v`, control characters replaced; `shape` may change a finished line."""

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
            text += "\n" + self.formatException(record.exc_info)
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

    `shape` may change the finished lines of the text format.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(program) if format == "json" else TextFormatter(program, shape))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def last_words(message: str, hint: str) -> None:
    """Say on stderr why a program ends: a line for what is wrong, and one for what to do where that is known."""
    sys.stderr.write(f"error: {clean(message)}\n" + (f"hint: {clean(hint)}\n" if hint else ""))


def is_ours(line: str) -> bool:
    """Return whether `line` is what a program of ours said: a log line in text, or its last words."""
    return _TEXT_LINE.match(line) is not None or line.startswith(_LAST_WORDS)


def shorten(line: str, columns: int) -> str:
    """Return a log line in text as a person at a terminal wants it: on one row of `columns`, without data dumps.

    Warnings and errors stay whole: what to do stands at their end. But for the listener's error: what it gives up on
    is told in full when all has ended. What is no log line of ours stays as it is.
    """
    found = _TEXT_LINE.match(line)
    if found is None:
        return line
    if found["level"] in {"WARNING", "CRITICAL"} or (found["level"] == "ERROR" and found["program"] != "listener"):
        return line
    line = _FOR_MACHINES.sub("", line)
    return line if len(line) <= columns else line[: columns - 3] + "..."
