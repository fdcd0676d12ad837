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
        'root ::= ("a" # (((\r | "b"){2,5}',
        "root ::= <[123]> !<think> [^(]",
        "root ::= [a-z]{0,2000} " + "[a-z]{1,200} " * 100,
        'root ::= "a"' + "+" * 16,
        "root ::= " + '"a"? ' * 1000,
        'root ::= "abc|"{2000} [a-z|]{1,500}' + ' | "|"' * 400,
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
        'root ::= "' + "x" * 30_000 + '"{2000}',
        "root ::= " + '"xxxxxxxxxx"{2000} ' * 20,
        "root ::= [" + "a" * 30_000 + "]{ 5 , 2000 }",
        "root ::= " + " | ".join(['"a" root'] * 600),
        'root ::= "a"{1,99999999999999999999}',
        'root ::= "a"{ 5000 , }',
        'root ::= ("a"{#\n5000})',
        'root ::= "a"{x}',
        # For the engine a comment ends at a carriage return, and a quote within a token opens nothing.
        "root ::= #\r" + "(" * 60_000,
        'root ::= <"> ' + "(" * 60_000 + ' "a"',
        ")" * 100 + "(" * 100,
        # Written out they are gigabytes.
        'root ::= "' + "a" * 60_000 + '"{2000}',
        'root ::= "' + "a" * 30_000 + '"' + "+" * 30_000,
        'root ::= "a"' + "+" * 60_000,
        "root ::= " + ".{0,2000} " * 200,
        # Few elements, and many ways to go on.
        'root ::= "a"' + "+" * 17,
        "root ::= " + '"a"? ' * 1001,
        "\n".join(f"r{number} ::= x" for number in range(5000)),
    ],
)
def test_refused(grammar: str, refused: Refused) -> None:
    assert refused(lambda: check_grammar(grammar, "grammar")) == "grammar"


@pytest.mark.parametrize(
    "grammar",
    [
        "[" * 65_536,
        '"' + '\\"' * 32_767,
        '"' + '\\"' * 32_767 + "\\",
        "<" * 65_536,
        "{" + " " * 65_535,
        "{" + "\t" * 65_535,
    ],
    ids=["classes", "quotes", "quotes and a backslash", "tokens", "blanks", "tabs"],
)
def test_what_is_never_closed_is_read_once(grammar: str) -> None:
    """A pattern that begins again at each place takes the square: 800 blanks behind a brace took it 46 s."""
    check_grammar(grammar, "grammar")  # that it ends is the test
