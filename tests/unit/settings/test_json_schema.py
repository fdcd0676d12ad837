"""schema and codes: the rules between settings are in the schema, and every code is in the catalogue."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import llama_gguf.settings
from llama_gguf.settings.json_schema import DIALECT, json_schema
from llama_gguf.settings.messages.codes import PROBLEM_CODES

PACKAGE = Path(llama_gguf.settings.__file__).parents[1]
MODEL = {"model": {"path": "/m.gguf"}}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Return an independent validator of our schema."""
    return Draft202012Validator(json_schema())


@pytest.mark.parametrize(
    "tree",
    [
        MODEL,
        {"model": {"path": "/m.gguf", "name": None}},
        {"model": {"hf": {"repo": "a/b", "file": "c.gguf"}, "mmproj": None}},
        {**MODEL, "engine": {"gpu_layers": "auto"}},
        {**MODEL, "engine": {"gpu_layers": 12}},
        {**MODEL, "limits": {"requests_per_minute": None}},
        {**MODEL, "engine": {"extra_args": ["--slots"], "allow_unsafe_args": True}},
        {**MODEL, "engine": {"extra_args": ["--cache-reuse", "256"]}},
        {**MODEL, "auth": {"extra_header": "x-my-key"}},
        {**MODEL, "limits": {"store": "redis://ada@h:1/0"}},
        {**MODEL, "gateway": {"host": "::1", "cors": {"allow_origins": ["https://a.example:1", "*"]}}},
    ],
)
def test_right_is_accepted(validator: Draft202012Validator, tree: dict[str, Any]) -> None:
    validator.validate(tree)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"model": {}},
        {"model": {"path": None}},
        {"model": {"path": "/m", "name": "m"}},
        {**MODEL, "engine": {"extra_args": ["--slots"]}},
        {**MODEL, "engine": {"extra_args": ["--ctx_size=5"]}},
        {**MODEL, "engine": {"extra_args": ["--host"], "allow_unsafe_args": True}},
        {**MODEL, "engine": {"flash_attention": "off", "cache_type_v": "q8_0"}},
        {**MODEL, "auth": {"extra_header": "Content-Length"}},
        {**MODEL, "auth": {"bootstrap": {"env": "A", "generate": True}}},
        {"model": {"path": "/m", "draft": {"path": "/d"}}, "engine": {"task": "embed"}},
        {**MODEL, "nonsense": 1},
        {**MODEL, "gateway": {"cors": {"nonsense": 1}}},
    ],
)
def test_wrong_is_rejected(validator: Draft202012Validator, tree: dict[str, Any]) -> None:
    assert not validator.is_valid(tree)


def test_schema_tells_editors_what_settings_mean() -> None:
    schema = json_schema()
    assert schema["$schema"] == DIALECT
    for name, definition in schema["$defs"].items():
        if name == "JsonValue":  # what a user's own parameters can be
            continue
        assert definition["additionalProperties"] is False, name
        for key, node in definition["properties"].items():
            assert node.get("description"), f"{name}.{key}"


def test_every_code_in_the_source_is_in_the_catalogue_and_the_other_way_round() -> None:
    """Codes are what machines match on, so a new one is a decision."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        if file.name == "codes.py":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in PROBLEM_CODES:
                found.add(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem" and node.args:
                code = node.args[0]
                assert not isinstance(code, ast.Constant) or code.value in PROBLEM_CODES, ast.dump(code)
    assert found == set(PROBLEM_CODES)


def test_codes_and_meanings_are_well_formed() -> None:
    for code, meaning in PROBLEM_CODES.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
        assert meaning.endswith(".")
