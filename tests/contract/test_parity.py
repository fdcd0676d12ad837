"""What the replaced system did is proved row by row: every test that parity.yaml names exists, and nothing is unproved.

Also here: the parts of parity that can be seen in the source alone.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import llama_gguf
from llama_gguf.settings import parse
from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES
from llama_gguf.settings.loading.load import load

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(llama_gguf.__file__).parent
ROWS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests/contract/parity.yaml").read_text(encoding="utf-8"))
DEFECTS = 13


def names_of_tests(path: str) -> set[str]:
    """Return the names of the tests in a file that pytest would collect."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_") and not _skipped(node)}


def _skipped(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    marks = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
    return bool(marks & {"pytest.mark.skip", "pytest.mark.xfail"})


def test_every_row_names_tests_that_exist() -> None:
    files = {name.partition("::")[0] for row in ROWS for name in row["tests"]}
    found = {f"{file}::{test}" for file in files for test in names_of_tests(file)}
    missing = {name: row["row"] for row in ROWS for name in row["tests"] if name not in found}
    assert not missing


def test_rows_are_whole_and_told_once() -> None:
    for row in ROWS:
        assert set(row) == {"row", "tests"}
        assert row["tests"], row["row"]
        assert len(set(row["tests"])) == len(row["tests"])
    assert not [name for name, count in Counter(row["row"] for row in ROWS).items() if count > 1]
    assert {row["row"].split()[0].rstrip(":") for row in ROWS} == {"env", "http", "keys", "defect"}


def test_every_old_variable_and_every_defect_has_a_row() -> None:
    names = {match[1] for row in ROWS if (match := re.match(r"env ([A-Z_]+)", row["row"]))}
    assert names == {old.name for old in LEGACY_VARIABLES}
    assert {int(row["row"].split()[1].rstrip(":")) for row in ROWS if row["row"].startswith("defect")} == set(
        range(1, DEFECTS + 1)
    )


def test_defaults_are_those_of_the_old_system() -> None:
    """Where one differs, docs/migration.md says how, and why that is better."""
    settings = parse({"model": {"path": "/m.gguf"}})
    gateway, limits = settings.gateway, settings.limits
    assert (gateway.host, gateway.port, settings.health.port) == ("0.0.0.0", 8000, 8001)
    assert settings.auth.enabled
    assert not settings.metrics.require_key
    assert limits.requests_per_minute == 100
    assert gateway.max_body_bytes == 10_485_760
    assert (gateway.max_headers, gateway.max_header_line_bytes, gateway.max_request_line_bytes) == (64, 8192, 8192)
    timeouts = gateway.timeouts
    assert (timeouts.connect_seconds, timeouts.header_seconds, timeouts.first_byte_seconds) == (10.0, 30.0, 300.0)
    assert settings.health.check_timeout_seconds == 2.0
    assert settings.engine.threads == 0
    assert gateway.cors.allow_origins == ()
    assert settings.supervisor.hold_seconds == 0.0
    assert gateway.drain_seconds == 30.0


@pytest.mark.parametrize(
    ("text", "meant"),
    [(word, True) for word in ("true", "1", "yes", "on", "TRUE", "Yes", "On")]
    + [(word, False) for word in ("false", "0", "no", "off", "False")],
)
@pytest.mark.parametrize("name", ["AUTH_ENABLED", "METRICS_AUTH_ENABLED", "DEBUG_SHELL"])
def test_every_old_way_to_say_yes_and_no(name: str, text: str, meant: bool) -> None:
    settings = load(None, {"MODEL_NAME": "m.gguf", name: text}).settings
    found = {
        "AUTH_ENABLED": settings.auth.enabled,
        "METRICS_AUTH_ENABLED": settings.metrics.require_key,
        "DEBUG_SHELL": settings.supervisor.hold_seconds > 0,
    }
    assert found[name] is meant


def test_one_module_knows_the_grammar_of_the_keys_file() -> None:
    """The old system had two parsers of one file with different rules: readers go through `file_format`."""
    readers = {file.stem for file, tree in _product() if "parse" in set(_called_on(tree, "file_format"))}
    assert readers, "who reads the keys file?"
    for file, tree in _product():
        if file.parent.name == "keys" and file.stem not in {"file_format", "json_lines", "audit"}:
            assert "json" not in set(_imports(tree)), f"{file} reads JSON itself"
        if file.parent.name != "keys":
            texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert not {"digest", "previous"} <= texts, f"{file} knows the fields of the keys file"


def test_no_test_mode_in_the_product() -> None:
    pattern = re.compile(r"(?:^|_)(?:mock|fake|dummy|test_mode|testing|pytest|unittest)(?:_|$)", re.IGNORECASE)
    found = []
    for file, tree in _product():
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        names |= set(_imports(tree))
        found += [f"{file.relative_to(PACKAGE)}: {name}" for name in sorted(names) if pattern.search(name)]
    assert not found


def _product() -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def _called_on(tree: ast.Module, owner: str) -> Iterator[str]:
    """Return what is called as `owner.name(...)`."""
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == owner:
            yield called.attr
