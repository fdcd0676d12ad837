"""Problems -> text like a compiler's (position, code, message, source line, caret), or plain data for JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llama_gguf.errors import Problem
from llama_gguf.settings.messages.pydantic_errors import names_a_secret, refers_to_secret
from llama_gguf.settings.redaction import mask_line

_WIDTH = 100
_VALUE_CODES = ("bad-value", "wrong-type")
_FIELDS = ("code", "severity", "path", "message", "hint", "source", "line", "column", "end_column")


def explain(problems: Iterable[Problem], text: str = "") -> str:
    """Render `problems`; `text` is the file that their line numbers refer to."""
    lines = text.split("\n")
    return "\n".join(_one(problem, lines) for problem in problems)


def as_data(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Return `problems` as JSON values."""
    return [{name: getattr(problem, name) for name in _FIELDS} for problem in problems]


def count(problems: Sequence[Problem]) -> str:
    """Return as in `2 errors, 1 warning`."""
    parts = []
    for severity in ("error", "warning"):
        number = sum(problem.severity == severity for problem in problems)
        if number:
            parts.append(f"{number} {severity}{'s' if number != 1 else ''}")
    return ", ".join(parts)


def _one(problem: Problem, lines: Sequence[str]) -> str:
    where = problem.source or "configuration"
    if problem.line:
        where += f":{problem.line}:{problem.column}"
    inline = problem.hint.startswith("did you mean")
    message = f"{problem.message}; {problem.hint}" if inline else problem.message
    parts = [f"{where}: {problem.severity}[{problem.code}]: {message}"]
    if 0 < problem.line <= len(lines) and lines[problem.line - 1].strip():
        parts += _excerpt(problem, lines[problem.line - 1])
    if problem.hint and not inline:
        parts.append(f"      = help: {problem.hint}")
    return "\n".join(parts)


def _excerpt(problem: Problem, line: str) -> list[str]:
    """Return the source line with a caret below the position; of long lines, the part around it."""
    line = line.rstrip("\r")
    path = problem.path.split(".")
    whole = refers_to_secret(path) or (problem.code in _VALUE_CODES and names_a_secret(path))
    shown = mask_line(line, whole_value=whole)
    start = problem.column - 1
    width = max(1, problem.end_column - problem.column) if problem.end_column else 1
    offset = max(0, start - _WIDTH // 2) if len(shown) > _WIDTH else 0
    shown = "".join(character if character.isprintable() else " " for character in shown[offset : offset + _WIDTH])
    start = min(start - offset, len(shown))
    width = max(1, min(width, len(shown) - start))
    number = f"{problem.line:5d} | "
    return [f"{number}{shown}", f"{' ' * (len(number) - 2)}| {' ' * start}{'^' * width}"]
