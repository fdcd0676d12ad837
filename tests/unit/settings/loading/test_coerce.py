"""Text from variables and flags, as the setting wants it."""

from __future__ import annotations

import pytest

from llama_gguf.settings.loading.coerce import from_text
from llama_gguf.settings.loading.origins import parts
from llama_gguf.settings.schema_tree import settings_schema

SCHEMA = settings_schema()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gateway.port", "8000", 8000),
        ("gateway.port", " 8000 ", 8000),
        ("gateway.port", "80a", "80a"),
        ("gateway.port", "80.5", "80.5"),
        ("gateway.drain_seconds", "2.5", 2.5),
        ("gateway.drain_seconds", "2", 2),
        ("auth.enabled", "On", True),
        ("auth.enabled", "0", False),
        ("auth.enabled", "maybe", "maybe"),
        ("engine.gpu_layers", "12", 12),
        ("engine.gpu_layers", "auto", "auto"),
        ("model.name", "12", "12"),
        ("model.name", "null", None),
        ("gateway.host", "null", "null"),
        ("model.aliases", "a, b,", ["a", "b"]),
        ("model.aliases", '["a,b"]', ["a,b"]),
        ("engine.extra_args", "--a 'b c'", ["--a", "b c"]),
        ("engine.extra_args", '["--a", "b"]', ["--a", "b"]),
        ("engine.tensor_split", "3, 1.5", [3, 1.5]),
        ("engine.tensor_split", "3,x", [3, "x"]),
        ("engine.devices", "CUDA0,1", ["CUDA0", "1"]),
        ("engine.cpu_moe_layers", "12", 12),
        ("engine.cpu_moe_layers", "all", "all"),
        ("engine.speculative.types", "ngram-simple,draft-mtp", ["ngram-simple", "draft-mtp"]),
        ("engine.rope.scale", "4", 4),
        ("model.hf", '{"repo": "a/b"}', {"repo": "a/b"}),
        ("model.hf", "a/b", "a/b"),
        ("limits.requests_per_minute", "null", None),
        ("model.lora", '[{"path": "/a"}]', [{"path": "/a"}]),
        ("gateway.timeouts", '{"idle_seconds": 1e999}', {"idle_seconds": "1e999"}),
        ("gateway.timeouts", '{"idle_seconds": ' + "9" * 5000 + "}", {"idle_seconds": "9" * 5000}),
    ],
)
def test_text_becomes_what_the_setting_wants(name: str, text: str, value: object) -> None:
    found = from_text(text, parts(name), SCHEMA)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.aliases", '["a"'),
        ("model.hf", "{repo: a}"),
        ("engine.extra_args", "'a"),
        ("model.lora", "[" * 100_000),
        ("model.lora", "[" * 50 + "]" * 50),
        ("gateway.cors", '{"a":' * 300 + "1" + "}" * 300),
        ("gateway.timeouts", '{"idle_seconds": NaN}'),
        ("gateway.timeouts", '{"idle_seconds": 5, "idle_seconds": 6}'),
    ],
)
def test_text_that_cannot_be_read_raises(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"not valid JSON|quotation"):
        from_text(text, parts(name), SCHEMA)


def test_text_of_an_unknown_setting_stays() -> None:
    assert from_text("x", ("nonsense",), SCHEMA) == "x"
