"""The layout of rendered text."""

from __future__ import annotations

import json

import pytest
import yaml

from llama_gguf.platforms.serialize import Expression, to_flat_json, to_json, to_yaml


def test_yaml_keeps_order_and_reads_back() -> None:
    tree = {"z": [1, {"a": None}], "b": "x: y", "port": "8000", "text": "one\ntwo\n", "on": True, "ü": "ß"}
    text = to_yaml(tree, header=["first", ""])
    assert text.startswith("# first\n#\nz:\n  - 1\n")
    assert yaml.safe_load(text) == tree
    assert "text: |\n  one\n  two\n" in text


def test_yaml_writes_a_shared_value_out_twice() -> None:
    shared = {"a": 1}
    assert "&" not in to_yaml({"x": shared, "y": shared})


@pytest.mark.parametrize(
    "text", ["0E0", "1e3", "12:30:45", "0o17", "0x1F", "-1", "+.5", "y", "N", "yes", "~", "1_000", "5s"]
)
def test_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    assert to_yaml({"a": text}) == f"a: '{text}'\n"


def test_long_values_stay_on_one_line() -> None:
    assert to_yaml({"a": "word " * 200 + "end"}).count("\n") == 1


def test_expression_stays_unquoted() -> None:
    text = to_yaml({"a": Expression('{{ dig "a" 1 .x }}-ü'), "list": [Expression("{{ .b }}")]})
    assert text == 'a: {{ dig "a" 1 .x }}-ü\nlist:\n  - {{ .b }}\n'


def test_json_ends_with_a_newline_and_knows_no_infinity() -> None:
    assert json.loads(to_json({"ä": 1})) == {"ä": 1}
    assert to_json({}).endswith("}\n")
    assert to_flat_json({"a": ["ü", None]}) == '{"a":["ü",null]}'
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(float("inf"))
