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
_MAX_ELEMENTS = 1_000_000
"""Characters, classes and references that repetitions write out: 8 bytes each in the engine, and as many again."""

# In order: a comment, a literal, a class of characters, a token; a word; an operator. What is opened and never closed
# goes on to the end, and nothing is given back: to look for its end from each later place takes the square of the time.
_PART = re.compile(
    r"#[^\r\n]*+"
    r'|"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'
    r"|\[(?:[^\]\\]|\\.)*+(?:\]|\\?\Z)"
    r"|<[^>]*+(?:>|\Z)"
    r"|[a-zA-Z0-9-]++"
    r"|::=|[(){}*+?.]",
    re.DOTALL,
)


def check_grammar(grammar: str, path: str) -> None:
    """Refuse a grammar that is nested too deep, or has too many rules or repetitions. Raises GatewayError."""
    depth = rules = elements = 0
    last = 1  # elements of the symbol that a repetition would repeat
    times: int | None = None  # the highest count within braces
    for found in _PART.finditer(grammar):
        part = found[0]
        first = part[0]
        if first == "#":
            continue
        if times is not None and first != "}":
            times = max(times, _times(part, path))
            continue
        if first == "{":
            times = 0
        elif first in "}*+?":
            last *= max(1, times or 0)
            times = None
            elements += last
            last += 1  # the reference to the rule that repeats it
        elif first == "(":
            depth += 1
        elif first == ")":
            depth = max(0, depth - 1)
            last = 1
        elif first == ":":
            rules += 1
        else:
            last = len(part) if first in '"[' else 1
        if depth > _MAX_DEPTH:
            raise refusal(path, f"is nested deeper than {_MAX_DEPTH} parentheses.")
        if rules > _MAX_RULES:
            raise refusal(path, f"has more than {_MAX_RULES} rules.")
        if elements > _MAX_ELEMENTS:
            raise refusal(path, f"repeats so much that it has more than {_MAX_ELEMENTS} elements.")


def _times(part: str, path: str) -> int:
    """Return what a part within braces counts. Raises GatewayError."""
    if not (part.isascii() and part.isdigit()):
        raise refusal(path, "has a repetition that is not of the form {2,5}.")
    if len(part) > 9 or int(part) > _MAX_REPETITION:
        raise refusal(path, f"repeats more than {_MAX_REPETITION} times.")
    return int(part)
