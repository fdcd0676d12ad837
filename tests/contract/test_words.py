"""What users read says things in the words of the field: RFC 9110, OpenAI, Kubernetes and Linux."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from docs.diagrams.import_graph import PACKAGE, sources

# A word that messages, help texts, descriptions and the reference must not use -> the better one.
WORDS = {
    r"(?:\b(?:an?|the|its|every|one|streamed|error|plain|no)|'s) answers?": "response",
    r"(?:told|heard)": "reported",
    r"(?:tells?(?! .*\bapart)|hears?)(?! audio)": "reports, accepts",
    r"^(?:Most|Longest)": "Maximum",
    r"^Least": "Minimum",
    r"makes(?! (?:no )?sense)": "creates",
    r"lets? go": "closes, releases",
    r"takes? up|taken up": "resumes",
    r"cuts?(?! (?:off|short))": "aborts, truncates",
    r"goes away|went away|gone": "disconnects, is missing",
    r"anew": "again",
    r"by itself": "automatically",
    r"in force": "effective",
    r"kept": "retained",
    r"old system": "legacy",
    r"may not": "must not, is not allowed to, might not",
    r"(?:by|the) address|Redis address|https?:// address|HTTP\(S\) address": "URL",
    r"response head|request head|proper head": "headers",
    r"asked (?:of|for)": "queried, requested",
    r"(?:are|is) spoken": "is supported",
    r"be had": "be obtained",
    r"switched off": "disabled",
    r"pointless": "what is to be done instead",
    r"nobody knows|knows no": "unknown, does not support",
}


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each text of three words and more that users may read, and its line.

    Those are all literals that are no docstring and no pattern, and the docstrings of commands: click prints them.
    """
    others: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = getattr(node, "decorator_list", [])
            if not any(re.search(r"\b(command|group)\(", ast.unparse(decorator)) for decorator in decorators):
                others.update(line.value for line in node.body if isinstance(line, ast.Expr))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
            others.update(ast.walk(node))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or node in others:
            continue
        if isinstance(node.value, str) and len(node.value.split()) >= 3:
            yield node.lineno, node.value


def found(tree: ast.Module) -> list[str]:
    """Return the words of the list that a module's texts use, each with its line and the better word."""
    return [
        f"{line}: {match[0]!r}, better: {better}"
        for line, text in texts(tree)
        for word, better in WORDS.items()
        if (match := re.search(rf"(?<!\w)(?:{word})(?!\w)" if not word.startswith("^") else rf"{word}\b", text))
    ]


def _part(module: str) -> str:
    return module.removeprefix(PACKAGE).strip(".").partition(".")[0]


@pytest.mark.parametrize("part", sorted({_part(module) for module in sources()} - {""}))
def test_what_users_read_has_the_words_of_the_field(part: str) -> None:
    wrong = [f"{module}:{use}" for module, tree in sources().items() if _part(module) == part for use in found(tree)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("raise ConfigError('the model could not be had')", True),
        ("_log.warning(f'the client {name} has gone away')", True),
        ("Field(1, description='Most waiting requests.')", True),
        ("@click.command()\ndef f():\n    'Start the gateway anew, please.'", True),
        ("def f():\n    'Start the gateway anew, please.'", False),
        ("re.compile('the answer from it')", False),
        ("Field(1, description='Maximum number of requests; the most useful one.')", False),
        ("hint = 'the engine answers with an error'", False),
    ],
)
def test_a_word_of_the_list_is_found_where_users_read_it(code: str, *, wrong: bool) -> None:
    assert bool(found(ast.parse(code))) == wrong
