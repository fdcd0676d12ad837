"""Regular expressions in a JSON schema: whether llama-server's converter can turn one into a grammar. Pure.

It never runs them. Those that it cannot convert it replaces with "any string" (_pattern_to_rule in
common/json-schema-to-grammar.cpp of the pinned llama.cpp, which this follows).
"""

from __future__ import annotations

import re
from collections.abc import Callable

_MAX_DEPTH = 100
_MAX_REPETITION = 2000  # the grammar's own limit
_ESCAPED = frozenset("^$.[]()|{}*+?")  # may be escaped outside a class
_GRAMMAR_ESCAPE = re.compile(r"\\(?:[trn\\\"\[\]-]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})")
_CLASS = re.compile(r"\[((?:\\.|[^\\\]])*)\]", re.DOTALL)
_REPETITION = re.compile(r"\{(\d{0,9})(?:(,)(\d{0,9}))?\}")


def pattern_defect(pattern: str) -> str:
    """Return why a pattern cannot be enforced, "" if it can."""
    if len(pattern) < 2 or pattern[0] != "^" or pattern[-1] != "$":
        return "it is not anchored with ^ and $"
    return _Scan(pattern[1:-1]).defect()


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._repeatable = False

    def defect(self) -> str:
        while self._at < len(self._text):
            if found := self._step():
                return found
        return "a parenthesis is not closed" if self._depth else ""

    def _step(self) -> str:
        char = self._text[self._at]
        special = _STEPS.get(char)
        if special is not None:
            return special(self)
        if char in "^$]}":
            return f"it has a {char} inside"
        self._at += 1
        self._repeatable = char != "|"
        return ""

    def _close(self) -> str:
        self._at += 1
        self._depth -= 1
        self._repeatable = True
        return "a parenthesis is closed that was not opened" if self._depth < 0 else ""

    def _repeat(self) -> str:
        self._at += 1
        return "" if self._repeatable else "there is nothing to repeat"

    def _open(self) -> str:
        self._at += 1
        if self._text.startswith("?", self._at):
            if not self._text.startswith("?:", self._at):
                return "it has a group of a special kind"
            self._at += 2
        self._depth += 1
        self._repeatable = False
        return "it is nested too deep" if self._depth > _MAX_DEPTH else ""

    def _class(self) -> str:
        found = _CLASS.match(self._text, self._at)
        if found is None:
            return "a character class is not closed"
        inner = found[1]
        for escape in re.finditer(r"\\", re.sub(_GRAMMAR_ESCAPE, "", inner)):
            return f"it has an escape in a character class at {escape.start()}"
        self._at = found.end()
        self._repeatable = True
        return ""

    def _repetition(self) -> str:
        found = _REPETITION.match(self._text, self._at)
        if found is None or not (found[1] or found[3]):
            return "a repetition is not of the form {2,5}"
        if any(int(number) > _MAX_REPETITION for number in (found[1], found[3] or "") if number):
            return f"it repeats more than {_MAX_REPETITION} times"
        self._at = found.end()
        return "" if self._repeatable else "there is nothing to repeat"

    def _escape(self) -> str:
        following = self._text[self._at + 1 : self._at + 2]
        if following and following in _ESCAPED:
            self._at += 2
        elif found := _GRAMMAR_ESCAPE.match(self._text, self._at):
            self._at = found.end()
        else:
            return f"it has the escape \\{following}"
        self._repeatable = True
        return ""


_STEPS: dict[str, Callable[[_Scan], str]] = {
    "(": _Scan._open,
    ")": _Scan._close,
    "[": _Scan._class,
    "*": _Scan._repeat,
    "+": _Scan._repeat,
    "?": _Scan._repeat,
    "{": _Scan._repetition,
    "\\": _Scan._escape,
}
