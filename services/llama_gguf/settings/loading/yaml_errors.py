"""PyYAML's syntax errors -> one problem in plain words, at the position of the cause. Pure.

PyYAML reports the rule that failed; people need the mistake: a tab, a missing colon, an unclosed quote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from llama_gguf.errors import Problem

MAX_DEPTH = 20
_SYNTAX = (
    (r"character '\\t'", "a tab where only spaces are allowed", "indent with spaces"),
    (r"could not find expected ':'", "a key without `:`", "write `key: value`, with a space after the colon"),
    (
        r"mapping values are not allowed here",
        "a second `:` on this line, or a line indented deeper than its group",
        "align the settings of a group, and quote values that contain `: `",
    ),
    (
        r"expected <block end>, but found '?<block (mapping|sequence) start>'?",
        "wrong indentation",
        "align the settings of a group",
    ),
    (
        r"expected <block end>, but found '\?'",
        "a setting among list items",
        "indent it below its item, or align it with its group",
    ),
    (r"expected <block end>, but found '-'", "a list item among settings", "indent the list below its key"),
    (
        r"expected <block end>, but found '?<?(scalar|block entry)>?'?",
        "text after the end of a value",
        "quote the whole value",
    ),
    (
        r"unexpected end of stream|found unexpected document separator",
        "an unclosed quote",
        "close the quote",
    ),
    (r"expected ',' or '[\]}]'", "an unclosed `[` or `{`, or a missing comma", "close it, or add the comma"),
    (r"expected the node content", "a value is missing here", ""),
    (r"found character '[@`]'", "a value cannot begin with @ or `", "quote the value"),
    (r"found character '%'", "a value cannot begin with %", "quote the value"),
    (
        r"unknown escape character",
        "an unknown escape in a double-quoted text",
        "double the backslash, or use single quotes",
    ),
    (
        r"found undefined tag handle|expected URI|tag",
        "`!` begins a YAML tag, and tags are not supported",
        "quote the value",
    ),
    (
        r"did not find expected (alphabetic|digit)|expected alphabetic",
        "`&` or `*` needs quotes here",
        "quote the value",
    ),
)

_STARTED_EARLIER = re.compile(r"could not find expected ':'|unexpected end of stream|expected ',' or")
"""What PyYAML detects only later; the position to report is the start of the construct."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the text, counted from 1; `end_column` is exclusive (0 = unknown)."""

    line: int
    column: int
    end_column: int = 0


class TooDeepError(yaml.MarkedYAMLError):
    """Groups nested deeper than MAX_DEPTH."""


def syntax_problem(error: yaml.YAMLError, text: str, source: str) -> Problem:
    """Return the problem that `error` means."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        message = f"character U+{error.character:04X} is not allowed in YAML"
        return Problem("yaml-character", message, "", source, line, column, hint="remove it")
    problem = str(getattr(error, "problem", None) or error)
    mark = getattr(error, "problem_mark", None)
    if _STARTED_EARLIER.search(problem):
        mark = getattr(error, "context_mark", None) or mark
    position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
    if isinstance(error, TooDeepError):
        found = ("yaml-depth", f"groups nested more than {MAX_DEPTH} deep", "", position)
    elif isinstance(error, yaml.composer.ComposerError):
        hint = "keep only one document in the file; remove the `---` between them"
        found = ("yaml-documents", "a second YAML document begins here", hint, position)
    else:
        found = _parser_problem(problem, text, position)
    code, message, hint, position = found
    return Problem(code, message, "", source, position.line, position.column, position.end_column, hint)


def _parser_problem(problem: str, text: str, position: Position) -> tuple[str, str, str, Position]:
    """Return (code, message, hint, position) for what PyYAML's parser could not read."""
    if tab := _tab_indent(text, position.line):
        return "yaml-tab", "a tab where only spaces are allowed", "indent with spaces", tab
    if whole_line := _line_problem(text, position.line, problem):
        line, message, hint = whole_line
        return "yaml-syntax", f"not valid YAML: {message}", hint, Position(line, 1)
    for pattern, message, hint in _SYNTAX:
        if re.search(pattern, problem):
            code = "yaml-tab" if "tab where" in message else "yaml-syntax"
            return code, f"not valid YAML: {message}", hint, position
    return "yaml-syntax", f"not valid YAML: {problem}", "", position


def _line_problem(text: str, line: int, problem: str) -> tuple[int, str, str] | None:
    """Return (line, message, hint) if a whole line is the cause, not the position where the parser stopped."""
    lines = text.split("\n")
    if re.match(r"<{7}|={7}|>{7}", lines[line - 1] if line <= len(lines) else ""):
        return line, "an unresolved Git merge conflict", "resolve it"
    if "mapping values are not allowed" not in problem:
        return None
    above = next((n for n in range(line - 1, 0, -1) if lines[n - 1].split("#")[0].strip()), 0)
    if above and ":" not in lines[above - 1]:
        return above, "a key without `:`", "write `key:`, with its settings indented below"
    return None


def _tab_indent(text: str, line: int) -> Position | None:
    """Return the position of a tab in the indentation of `line` or the line before: the usual cause of odd errors."""
    lines = text.split("\n")
    for number in (line, line - 1):
        if 0 < number <= len(lines) and (found := re.match(r" *\t", lines[number - 1])):
            return Position(number, found.end(), found.end() + 1)
    return None
