"""Grammars: nesting, rules and repetitions have bounds, whatever is in literals and comments."""

from __future__ import annotations

import pytest

from llama_gguf.gateway.request.constraints.grammars import check_grammar

from ..conftest import Refused


@pytest.mark.parametrize(
    "grammar",
    [
        "",
        'root ::= "a"',
        'root ::= ("a" | ("b" [(]{2,5})*)+\nx ::= [a-z]{3}',
        'root ::= "' + "(" * 1000 + '"',
        "root ::= [" + "(" * 1000 + "]",
        "# " + "(" * 1000 + '\nroot ::= "a"',
        "root ::= " + "(a) " * 1000,
        "not a grammar at all )))",
    ],
)
def test_taken(grammar: str) -> None:
    check_grammar(grammar, "grammar")


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= " + "(" * 60_000,
        "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000,
        'root ::= "\\"' + '" ' + "(" * 100,
        "root ::= # x\n" + "(" * 100,
        'root ::= "a"{100000}',
        'root ::= "a"{1,99999999999999999999}',
        'root ::= "a"{ 5000 , }',
        "\n".join(f"r{number} ::= x" for number in range(5000)),
    ],
)
def test_refused(grammar: str, refused: Refused) -> None:
    assert refused(lambda: check_grammar(grammar, "grammar")) == "grammar"
