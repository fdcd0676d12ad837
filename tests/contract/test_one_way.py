"""There is one way to write a time as text: what does it by itself drifts from the others.

A second owner is found by what it cannot do without; a test plants one, so that none of these can fall asleep.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "services" / "llama_gguf"

CALLS = {
    "timestamps.py": {"isoformat", "strftime", "gmtime", "ctime"},
}
"""Module -> methods and functions that it alone calls."""


def _called(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield node.lineno, name


def _strays(owner: str, path: str, source: str) -> list[str]:
    """What a module does that is the business of `owner` alone."""
    if path == owner:
        return []
    return [f"{path}:{line}: {name}()" for line, name in _called(source) if name in CALLS[owner]]


@pytest.mark.parametrize("owner", CALLS)
def test_nobody_else_does_it(owner: str) -> None:
    assert CALLS[owner] & {name for _, name in _called((PACKAGE / owner).read_text(encoding="utf-8"))}
    found = [
        stray
        for path in sorted(PACKAGE.rglob("*.py"))
        for stray in _strays(owner, str(path.relative_to(PACKAGE)), path.read_text(encoding="utf-8"))
    ]
    assert not found, found


@pytest.mark.parametrize(
    ("owner", "planted"),
    [
        ("timestamps.py", "import datetime as dt\nsaid = dt.datetime.now(dt.UTC).isoformat()"),
        ("timestamps.py", "from time import gmtime, strftime\nsaid = strftime('%Y', gmtime())"),
    ],
)
def test_a_second_way_is_found(owner: str, planted: str) -> None:
    assert _strays(owner, "planted.py", planted)
