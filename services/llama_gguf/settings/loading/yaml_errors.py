"""What PyYAML could not read -> one problem in an operator's words, at the place where the cause is. Pure.

PyYAML names the rule that failed; people need the mistake: a tab, a missing colon, a quote left open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from llama_gguf.errors import Problem

MAX_DEPTH = 20
_SYNTAX = (
    (r"character '\\t'", "a tab where only spaces may be", "indent with spaces"),
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
        "text after a finished value",
        "quote the whole value",
    ),
    (
        r"unexpected end of stream|found unexpected document separator",
        "a quote that is never closed",
        "close the quote",
    ),
    (r"expected ',' or '[\]}]'", "a `[` or `{` that is not closed, or a missing comma", "close it, or add the comma"),
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
        "`!` begins a YAML tag, which is not used here",
        "quote the value",
    ),
    (
        r"did not find expected (alphabetic|digit)|expected alphabetic",
        "`&` or `*` needs quotes here",
        "quote the value",
    ),
)

_STARTED_EARLIER = re.compile(r"could not find expected ':'|unexpected end of stream|expected ',' or")
"""What PyYAML notices only later; the place to look at is where the construct began."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the text; counted from 1, `end_column` exclusive (0 = unknown)."""

    line: int
    column: int
    end_column: int = 0


class TooDeepError(yaml.MarkedYAMLError):
    """Groups in groups beyond MAX_DEPTH."""


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
    place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
    if isinstance(error, TooDeepError):
        found = ("yaml-depth", f"groups nested more than {MAX_DEPTH} deep", "", place)
    elif isinstance(error, yaml.composer.ComposerError):
        hint = "keep one document in the file; remove the `---` between them"
        found = ("yaml-documents", "a second YAML document begins here", hint, place)
    else:
        found = _parser_problem(problem, text, place)
    code, message, hint, place = found
    return Problem(code, message, "", source, place.line, place.column, place.end_column, hint)


def _parser_problem(problem: str, text: str, place: Place) -> tuple[str, str, str, Place]:
    """Return (code, message, hint, place) for what PyYAML's parser could not read."""
    if tab := _tab_indent(text, place.line):
        return "yaml-tab", "a tab where only spaces may be", "indent with spaces", tab
    if whole_line := _line_problem(text, place.line, problem):
        line, message, hint = whole_line
        return "yaml-syntax", f"not valid YAML: {message}", hint, Place(line, 1)
    for pattern, message, hint in _SYNTAX:
        if re.search(pattern, problem):
            code = "yaml-tab" if "tab where" in message else "yaml-syntax"
            return code, f"not valid YAML: {message}", hint, place
    return "yaml-syntax", f"not valid YAML: {problem}", "", place


def _line_problem(text: str, line: int, problem: str) -> tuple[int, str, str] | None:
    """Return (line, message, hint) where a whole line is the cause, not the place the parser stopped at."""
    lines = text.split("\n")
    if re.match(r"<{7}|={7}|>{7}", lines[line - 1] if line <= len(lines) else ""):
        return line, "a merge conflict of git was left in the file", "resolve it"
    if "mapping values are not allowed" not in problem:
        return None
    above = next((n for n in range(line - 1, 0, -1) if lines[n - 1].split("#")[0].strip()), 0)
    if above and ":" not in lines[above - 1]:
        return above, "a key without `:`", "write `key:`, with its settings indented below"
    return None


def _tab_indent(text: str, line: int) -> Place | None:
    """Return the place of a tab in the indentation of `line` or the line before: the usual cause of odd errors."""
    lines = text.split("\n")
    for number in (line, line - 1):
        if 0 < number <= len(lines) and (found := re.match(r" *\t", lines[number - 1])):
            return Place(number, found.end(), found.end() + 1)
    return None
