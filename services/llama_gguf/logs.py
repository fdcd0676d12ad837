"""Logging set-up, called by program mains only: JSON lines or text, one line an event, to stdout.

Owns the two formatters, and the form of a program's last words, which the fatal listener and the diagnosis read. A
log line is a fact with fields: `log.info("engine ready", extra=fields(load_seconds=4.2))`. Control characters never
reach a line, so no value can forge one.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from typing import Any, Literal, TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LEFT_BY_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029]")


def fields(**values: object) -> dict[str, Any]:
    """Wrap structured values for a logging call's `extra=`."""
    return {"fields": values}


def clean(text: str) -> str:
    """Return `text` with control characters (newlines, escapes, C1, line separators) replaced by `?`."""
    return _CONTROL.sub("?", text)


def _timestamp(created: float) -> str:
    return dt.datetime.fromtimestamp(created, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, program, event, then the fields."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": _timestamp(record.created),
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
    """`ts | LEVEL | program | event | k=v k=v`, control characters replaced."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        parts = [_timestamp(record.created), record.levelname, self._program, clean(record.getMessage())]
        extra = getattr(record, "fields", {})
        if extra:
            parts.append(" ".join(f"{key}={clean(str(value))}" for key, value in extra.items()))
        text = " | ".join(parts)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def configure(program: str, *, format: Literal["text", "json"], level: str, stream: TextIO | None = None) -> None:  # noqa: A002
    """Send every log record of this process to `stream` (default stdout) in the chosen format."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(program) if format == "json" else TextFormatter(program))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def last_words(message: str, hint: str) -> None:
    """Say on stderr why a program ends: a line for what is wrong, and one for what to do where that is known."""
    sys.stderr.write(f"error: {clean(message)}\n" + (f"hint: {clean(hint)}\n" if hint else ""))
