"""What was probably meant by the name of a setting that is none."""

from __future__ import annotations

import pytest

from llama_gguf.settings.loading.origins import parts
from llama_gguf.settings.messages.did_you_mean import suggestion, synonyms
from llama_gguf.settings.schema_tree import settings_schema

SCHEMA = settings_schema()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gateway.prot", 'did you mean "port"?'),
        ("engine.ngl", 'did you mean "gpu_layers"?'),
        ("engine.nCtx", 'did you mean "context_per_slot"?'),
        ("slots", 'did you mean "engine.slots"? Check the indentation'),
        ("gateway.engine", 'did you mean "engine"? Check the indentation'),
        ("model.repo", 'did you mean "hf.repo"?'),
        ("model.file", 'did you mean "path" or "hf.file"?'),
        ("gateway.idle_seconds", 'did you mean "timeouts.idle_seconds"?'),
        ("gateway.cors_origins", 'did you mean "cors.allow_origins"?'),
        ("metrics.rpm", 'did you mean "limits.requests_per_minute"?'),
        ("metrics.max_headrs", 'did you mean "gateway.max_headers"?'),
        ("zzz", ""),
        ("health.zzz", ""),
    ],
)
def test_suggestion(name: str, expected: str) -> None:
    assert suggestion(parts(name), SCHEMA) == expected


def test_name_with_dots_is_written_as_a_group() -> None:
    assert suggestion(("gateway.port",), SCHEMA) == "write it as a group: gateway: {port: …}"


def test_keys_in_the_file_are_sent_elsewhere() -> None:
    assert "keys generate" in suggestion(("auth", "api_key"), SCHEMA)
    assert "keys generate" in suggestion(("api_keys",), SCHEMA)


def test_every_synonym_names_a_setting() -> None:
    for name, target in synonyms().items():
        assert SCHEMA.at(parts(target)) is not None, target
        assert name == name.lower()
