"""Grammars that a client sends: bounds on what llama-server's parser recurses into and writes out. Pure.

It descends into each parenthesis (60,000 of them end it) and copies what is repeated (a literal of 60 KB with `{2000}`
takes a gigabyte). This reads as it does (src/llama-grammar.cpp of the pinned llama.cpp): a parenthesis that is hidden
here and not there would end it. Each character is looked at once, whatever the client sends.
"""

from __future__ import annotations

import re

from llama_gguf.gateway.request.refusal import refusal

_MAX_DEPTH = 64
_MAX_RULES = 2000
_MAX_REPETITION = 2000
_MAX_REPETITIONS = 1000
"""In one grammar. Each that may be empty is a way to go on, and the engine follows all: 1000 take it a second."""
_MAX_IN_A_ROW = 16
"""Repetitions of one symbol, as in `"a"++`: 1400 take the engine 21 s."""
_MAX_ALTERNATIVES = 500
"""Each may be a state of its own, and the engine compares each with all others."""
_MAX_ELEMENTS = 250_000
"""Characters, classes and references that repetitions write out: these take the engine 80 MB and 0.1 s."""

# In order: a comment, a literal, a class of characters, a token; a word; an operator. What is opened and never closed
# goes on to the end, and nothing is given back: to look for its end from each later place takes the square of the time.
_PART = re.compile(
    r"#[^\r\n]*+"
    r'|"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'
    r"|\[(?:[^\]\\]|\\.)*+(?:\]|\\?\Z)"
    r"|<[^>]*+(?:>|\Z)"
    r"|[a-zA-Z0-9-]++"
    r"|::=|[(){}*+?.|]",
    re.DOTALL,
)


def check_grammar(grammar: str, path: str) -> None:
    """Refuse a grammar that is nested too deep, or has too many rules or repetitions. Raises GatewayError."""
    extent = _Extent()
    times: int | None = None  # the highest count within braces
    for found in _PART.finditer(grammar):
        part = found[0]
        first = part[0]
        if first == "#":
            continue
        if times is not None and first != "}":
            times = max(times, _times(part, path))
        elif first == "{":
            times = 0
        elif first in "}*+?":
            extent.repeat(times or 1)
            times = None
        else:
            extent.add(part)
        if excess := extent.excess():
            raise refusal(path, excess)


class _Extent:
    """What of a grammar has been seen."""

    def __init__(self) -> None:
        self._depth = 0
        self._rules = 0
        self._elements = 0
        self._repetitions = 0
        self._alternatives = 0
        self._in_a_row = 0
        self._last = 1  # elements of the symbol that a repetition would repeat

    def add(self, part: str) -> None:
        self._in_a_row = 0
        self._last = len(part) if part[0] in '"[' else 1
        if part == "(":
            self._depth += 1
        elif part == ")":
            self._depth = max(0, self._depth - 1)
        elif part == "::=":
            self._rules += 1
        elif part == "|":
            self._alternatives += 1

    def repeat(self, times: int) -> None:
        self._repetitions += 1
        self._in_a_row += 1
        self._elements += self._last * times
        self._last = self._last * times + 1  # and the reference to the rule that repeats it

    def excess(self) -> str:
        """Return what is too much, "" if nothing is."""
        bounds = (
            (self._depth, _MAX_DEPTH, "is nested deeper than {} parentheses."),
            (self._rules, _MAX_RULES, "has more than {} rules."),
            (self._alternatives, _MAX_ALTERNATIVES, "has more than {} alternatives."),
            (self._repetitions, _MAX_REPETITIONS, "has more than {} repetitions."),
            (self._in_a_row, _MAX_IN_A_ROW, "repeats one symbol in more than {} ways."),
            (self._elements, _MAX_ELEMENTS, "repeats so much that it has more than {} elements."),
        )
        return next((words.format(bound) for found, bound, words in bounds if found > bound), "")


def _times(part: str, path: str) -> int:
    """Return what a part within braces counts. Raises GatewayError."""
    if not (part.isascii() and part.isdigit()):
        raise refusal(path, "has a repetition that is not of the form {2,5}.")
    if len(part) > 9 or int(part) > _MAX_REPETITION:
        raise refusal(path, f"repeats more than {_MAX_REPETITION} times.")
    return int(part)
