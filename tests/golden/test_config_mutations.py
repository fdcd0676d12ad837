"""One edit to any key of any example is caught: 99 % at least.

An edit that leaves the same tree (spaces that mean nothing) is no mistake and is not counted.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.settings.loading.load import InvalidConfigError, loads
from llama_gguf.settings.loading.yaml_document import Document, parse
from llama_gguf.settings.loading.yaml_errors import Position
from llama_gguf.settings.schema_tree import SettingPath, settings_schema

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [ROOT / "config/config.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]
SEED = 20261122

Edit = tuple[str, SettingPath, str]  # kind, setting, the text after it


def replaced(text: str, position: Position, new: str) -> str:
    """Return `text` with what is at `position` (on one line) replaced."""
    lines = text.split("\n")
    line = lines[position.line - 1]
    lines[position.line - 1] = line[: position.column - 1] + new + line[position.end_column - 1 :]
    return "\n".join(lines)


def key_edits(text: str, path: SettingPath, position: Position, dice: random.Random) -> Iterator[Edit]:
    """Yield misspellings of a key."""
    key = str(path[-1])
    at = dice.randrange(len(key))
    yield "drop a character", path, replaced(text, position, key[:at] + key[at + 1 :] or "_")
    yield "double a character", path, replaced(text, position, key[: at + 1] + key[at:])
    yield (
        "another character",
        path,
        replaced(text, position, f"{key[:at]}{'x' if key[at] != 'x' else 'y'}{key[at + 1 :]}"),
    )
    if len(key) > 1:
        left = dice.randrange(len(key) - 1)
        swapped = key[:left] + key[left + 1] + key[left] + key[left + 2 :]
        if swapped != key:
            yield "swap neighbours", path, replaced(text, position, swapped)
    yield "no space after the colon", path, re.sub(rf"(?m)^(\s*{re.escape(key)}:) +(?=[^#\s])", r"\1", text, count=1)


def line_edits(text: str, path: SettingPath, position: Position) -> Iterator[Edit]:
    """Yield edits of the line that holds a key: given twice, or indented otherwise."""
    lines = text.split("\n")
    at = position.line - 1
    if lines[at][: position.column - 1].strip(" -"):
        return  # inside a flow mapping: the line is another key's
    yield "given twice", path, "\n".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])
    for kind, spaces in (("indented by one", 1), ("indented by two", 2)):
        yield kind, path, "\n".join([*lines[:at], " " * spaces + lines[at], *lines[at + 1 :]])
    for kind, spaces in (("dedented by one", 1), ("dedented by two", 2)):
        if lines[at].startswith(" " * spaces):
            yield kind, path, "\n".join([*lines[:at], lines[at][spaces:], *lines[at + 1 :]])
    yield "indented by a tab", path, "\n".join([*lines[:at], "\t" + lines[at].lstrip(), *lines[at + 1 :]])


def value_edits(text: str, path: SettingPath, position: Position, value: Any) -> Iterator[Edit]:
    """Yield values of the wrong kind, and out of range where there is a range."""
    wrong = [("a mapping", "{a: 1}"), ("a list of lists", "[[]]")]
    if not isinstance(path[-1], int):
        wrong.append(("nothing", ""))  # of a list it would be one item less, which may be right
    for kind, new in wrong:
        yield kind, path, replaced(text, position, new)
    if isinstance(value, bool):
        yield "text for a truth value", path, replaced(text, position, "maybe")
    elif isinstance(value, int | float):
        node = settings_schema().at(path) or {}
        yield "text for a number", path, replaced(text, position, "many")
        for bound, step in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0)):
            if bound in node:
                yield "out of range", path, replaced(text, position, str(node[bound] + step))
    elif isinstance(value, str):
        yield "a number for text", path, replaced(text, position, "17.5")
        yield "true for text", path, replaced(text, position, "true")
        yield "an unclosed quote", path, replaced(text, position, f'"{value}')


def deletions(text: str, read: Document) -> Iterator[Edit]:
    """Yield the file without a setting that something needs: the model, or a part of its source."""
    for path, position in read.keys.items():
        needed = path[0] == "model" and path[-1] in ("model", "path", "name", "url", "repo", "file")
        line = text.split("\n")[position.line - 1]
        if needed and not line[: position.column - 1].strip(" -"):
            lines = text.split("\n")
            below = [
                n
                for n in range(position.line, len(lines))
                if lines[n].strip() and len(lines[n]) - len(lines[n].lstrip()) <= position.column - 1
            ]
            yield "deleted", path, "\n".join([*lines[: position.line - 1], *lines[below[0] if below else len(lines) :]])


def is_users_own(path: SettingPath) -> bool:
    """Return whether a key is a name that the user gives (of a model, a variant), or one of his own parameters."""
    return (len(path) == 2 and path[0] == "models") or path[-2:-1] == ("variants",) or "defaults" in path[:-1]


def edits(text: str, dice: random.Random) -> Iterator[Edit]:
    """Yield every mutation of a file."""
    read = parse(text, "")
    for path, position in read.keys.items():
        if not is_users_own(path):
            yield from key_edits(text, path, position, dice)
        yield from line_edits(text, path, position)
    for path, position in read.values.items():
        if is_users_own(path):
            continue
        value: Any = read.tree
        for part in path:
            value = value[part]
        if position.end_column and not isinstance(value, dict | list):
            yield from value_edits(text, path, position, value)
    yield from deletions(text, read)


def is_caught(text: str) -> bool:
    """Return whether loading `text` fails."""
    try:
        loads(text, Path("config.yaml"), {})
    except InvalidConfigError:
        return True
    return False


def same_tree(left: str, right: str) -> bool:
    """Return whether two texts say the same."""
    one, other = parse(left, ""), parse(right, "")
    return one.tree == other.tree and not one.problems and not other.problems


def test_one_edit_to_any_key_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    dice = random.Random(SEED)
    tried: Counter[str] = Counter()
    missed: list[str] = []
    for file in EXAMPLES:
        text = file.read_text("utf-8")
        for kind, path, changed in edits(text, dice):
            caught = changed != text and is_caught(changed)
            if not caught and same_tree(text, changed):
                continue
            tried[kind] += 1
            if not caught:
                missed.append(f"{file.name}: {kind}: {'.'.join(map(str, path))}")
    total = sum(tried.values())
    rate = 1 - len(missed) / total
    with capsys.disabled():
        sys.stdout.write(f"\n{total} mutations of {len(EXAMPLES)} examples, {rate:.2%} caught; missed: {missed}\n")
    assert total > 1000
    assert min(tried.values()) >= 5, tried
    assert rate >= 0.99, missed
