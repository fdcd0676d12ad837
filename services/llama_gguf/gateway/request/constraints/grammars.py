"""Grammars that a client sends: bounds on what llama-server's parser recurses into. Pure.

It descends into each parenthesis (60,000 of them end it) and writes out each repetition.
"""

from __future__ import annotations

import re

from llama_gguf.gateway.request.refusal import refusal

_MAX_DEPTH = 64
_MAX_RULES = 2000
_MAX_REPETITION = 2000
# In order: a comment, a literal, a class of characters; what is left is structure.
_OPAQUE = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\])*\"|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
_STRUCTURE = re.compile(r"[()]|::=|\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


def check_grammar(grammar: str, path: str) -> None:
    """Refuse a grammar that is nested too deep, or has too many rules or repetitions. Raises GatewayError."""
    depth = rules = 0
    for found in _STRUCTURE.finditer(_OPAQUE.sub(" ", grammar)):
        part = found[0]
        if part == "(":
            depth += 1
        elif part == ")":
            depth -= 1
        elif part == "::=":
            rules += 1
        elif any(len(count) > 9 or int(count) > _MAX_REPETITION for count in found.groups() if count):
            raise refusal(path, f"repeats more than {_MAX_REPETITION} times.")
        if depth > _MAX_DEPTH:
            raise refusal(path, f"is nested deeper than {_MAX_DEPTH} parentheses.")
        if rules > _MAX_RULES:
            raise refusal(path, f"has more than {_MAX_RULES} rules.")
