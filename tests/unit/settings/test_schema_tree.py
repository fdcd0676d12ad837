"""Settings as data, and in words."""

from __future__ import annotations

import pytest

from llama_gguf.settings.loading.origins import parts
from llama_gguf.settings.schema_tree import SettingsSchema, dotted, either, env_name, settings_schema

SCHEMA = settings_schema()


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("gateway.port", "a whole number between 1 and 65535"),
        ("engine.gpu_layers", "`auto`, `all` or a whole number between 0 and 10000"),
        ("gateway.timeouts.idle_seconds", "a number above 0, at most 86400"),
        ("auth.enabled", "true or false"),
        ("model.path", "a path"),
        ("model.name", "text"),
        ("model.aliases", "a list of texts"),
        ("model.lora", "a list of groups of settings"),
        ("model.lora[0]", "a group of settings"),
        ("model.lora[0].scale", "a number between -10 and 10"),
        ("model.sha256", "a SHA-256: 64 lower-case hexadecimal digits"),
        ("model.hf", "a group of settings"),
        ("limits.queue.fairness", "`fair` or `fifo`"),
        ("gateway.nonsense", "nothing"),
    ],
)
def test_expected_in_words(name: str, phrase: str) -> None:
    assert SCHEMA.expected(parts(name)) == phrase


def test_phrases_of_schemas_that_settings_do_not_use_yet() -> None:
    schema = SettingsSchema({"properties": {}})
    assert schema.phrase({"type": "integer"}) == "a whole number"
    assert schema.phrase({"type": "number", "minimum": 0.5}) == "a number of at least 0.5"
    assert schema.phrase({"type": "number", "exclusiveMinimum": 0}) == "a number above 0"
    assert schema.phrase({"const": "x"}) == "`x`"
    assert schema.keys(("nonsense",)) == []


def test_names() -> None:
    assert dotted(("model", "lora", 0, "scale")) == "model.lora[0].scale"
    assert parts("model.lora[0].scale") == ("model", "lora", 0, "scale")
    assert env_name(("gateway", "max_headers")) == "LLAMA_GGUF__GATEWAY__MAX_HEADERS"
    assert either(["a"]) == "a"
    assert either(["a or b", "c"]) == "a, b or c"


def test_prefix_drops_what_pydantic_appends() -> None:
    assert SCHEMA.known_prefix(("engine", "gpu_layers", "constrained-int")) == ("engine", "gpu_layers")
    assert SCHEMA.known_prefix(("nonsense", "x")) == ()


def test_every_leaf_is_described_with_a_sentence() -> None:
    leaves = list(SCHEMA.leaves())
    assert len(leaves) > 100
    for leaf in leaves:
        text = str(leaf.node.get("description", ""))
        assert text.endswith("."), leaf.name
        assert SCHEMA.at(leaf.path) is not None
