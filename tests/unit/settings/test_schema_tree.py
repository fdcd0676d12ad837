"""schema, coerce, suggest and hints: settings as data, in words, and what was probably meant."""

from __future__ import annotations

import pytest

from llama_gguf.settings.loading.coerce import from_text
from llama_gguf.settings.loading.origins import parts
from llama_gguf.settings.messages.did_you_mean import suggestion, synonyms
from llama_gguf.settings.messages.hints import hint, show
from llama_gguf.settings.schema_tree import SettingsSchema, dotted, either, env_name, settings_schema

SCHEMA = settings_schema()


def path(name: str) -> tuple[str | int, ...]:
    """Return a dotted name as a path."""
    return parts(name)


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
    assert SCHEMA.expected(path(name)) == phrase


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
        ("model.hf", '{"repo": "a/b"}', {"repo": "a/b"}),
        ("model.hf", "a/b", "a/b"),
        ("limits.requests_per_minute", "null", None),
        ("model.lora", '[{"path": "/a"}]', [{"path": "/a"}]),
        ("gateway.timeouts", '{"idle_seconds": 1e999}', {"idle_seconds": "1e999"}),
        ("gateway.timeouts", '{"idle_seconds": ' + "9" * 5000 + "}", {"idle_seconds": "9" * 5000}),
    ],
)
def test_text_becomes_what_the_setting_wants(name: str, text: str, value: object) -> None:
    found = from_text(text, path(name), SCHEMA)
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
        from_text(text, path(name), SCHEMA)


def test_text_of_an_unknown_setting_stays() -> None:
    assert from_text("x", ("nonsense",), SCHEMA) == "x"


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
    assert suggestion(path(name), SCHEMA) == expected


def test_name_with_dots_is_written_as_a_group() -> None:
    assert suggestion(("gateway.port",), SCHEMA) == "write it as a group: gateway: {port: …}"


def test_keys_in_the_file_are_sent_elsewhere() -> None:
    assert "keys generate" in suggestion(("auth", "api_key"), SCHEMA)
    assert "keys generate" in suggestion(("api_keys",), SCHEMA)


def test_every_synonym_names_a_setting() -> None:
    for name, target in synonyms().items():
        assert SCHEMA.at(path(target)) is not None, target
        assert name == name.lower()


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("gateway.port", "8000", "did you mean 8000?"),
        ("gateway.port", "8_000", "did you mean 8000?"),
        ("gateway.max_body_bytes", "10 MiB", "did you mean 10485760?"),
        ("gateway.timeouts.idle_seconds", "500ms", "did you mean 0.5?"),
        ("gateway.timeouts.idle_seconds", "2min", "did you mean 120?"),
        ("gateway.port", "80 parsecs", ""),
        ("gateway.port", "http", ""),
        ("gateway.port", "1" * 30, ""),
        ("gateway.port", True, ""),
        ("gateway.port", [], ""),
        ("engine.slots", 2.0, "did you mean 2?"),
        ("engine.gpu_layers", -1, 'did you mean "all"?'),
        ("engine.gpu_layers", "max", 'did you mean "all"?'),
        ("engine.flash_attention", False, 'did you mean "off"?'),
        ("engine.flash_attention", "no", 'did you mean "off"?'),
        ("engine.cache_type_k", "q8", 'did you mean "q8_0"?'),
        ("engine.cache_type_k", "q", ""),
        ("health.platform", "k8s", 'did you mean "kubernetes"?'),
        ("health.path", "ping", 'did you mean "/ping"?'),
        ("model.sha256", "A" * 64, f'did you mean "{"a" * 64}"?'),
        ("auth.enabled", "ture", "did you mean true?"),
        ("auth.enabled", "nope", ""),
        ("auth.enabled", 0, "did you mean false?"),
        ("auth.enabled", 2, ""),
        ("model.aliases", "a", 'write a list: ["a"]'),
        ("model.aliases", {}, ""),
        ("model.lora", "/a", 'write a list of groups: [{path: "/a"}]'),
        ("model.hf", "a/b", "write {repo: OWNER/NAME, file: NAME.gguf}"),
        ("model.draft", "/d", 'write {path: "/d"}'),
        ("model", "path:/d", "a space is missing after the colon"),
        ("gateway", "open", ""),
        ("gateway", 5, ""),
        ("limits.requests_per_minute", "unlimited", "did you mean null?"),
        ("limits.requests_per_minute", 0, "did you mean null?"),
        ("gateway.port", None, "remove the line, or give it a value"),
        (
            "gateway.port",
            "${PORT}",
            "variables are not expanded here: set the LLAMA_GGUF__ variable of this setting instead",
        ),
        ("auth.bootstrap.env", "$FIRST_KEY", 'did you mean "FIRST_KEY"?'),
        ("auth.bootstrap.env", "a-b", ""),
        ("gateway.host", 7, 'did you mean "7"?'),
        ("gateway.timeouts.idle_seconds", "5m", "did you mean 300?"),
        ("gateway.timeouts.idle_seconds", "5MB", ""),
        ("engine.context_per_slot", "8k", "did you mean 8192?"),
        ("engine.prompt_cache_mib", "2G", "did you mean 2048?"),
        ("engine.gpu_layers", "99", "did you mean 99?"),
        ("engine.task", "embeddings", 'did you mean "embed"?'),
        ("engine.pooling", "average", 'did you mean "mean"?'),
        ("gateway.port", "8000#public", "a comment needs a space before its #"),
        ("model.hf.repo", "https://huggingface.co/o/n-GGUF/tree/main", 'did you mean "o/n-GGUF"?'),
        ("model.hf.repo", "o/n:Q4_K_M", "write repo: o/n, and set `file` to the name of its Q4_K_M file"),
        ("model.hf.repo", "n", ""),
        ("gateway", "port = 8000 host = x", "write port: 8000"),
        ("gateway", "prot = 8000", ""),
        ("gateway.cors", ["*"], "write {allow_origins: […]}"),
        ("auth.bootstrap", True, "write {generate: true}"),
        ("auth.bootstrap", False, ""),
        ("gateway.routes", "all", "write a list, as in [chat, completions]"),
        ("gateway.routes", "Chat", "write a list, as in [chat]"),
    ],
)
def test_hint(name: str, given: object, expected: str) -> None:
    assert hint(path(name), given, SCHEMA) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ("a", '"a"'),
        ("b" * 80, f'"{"b" * 57}..."'),
        ([], "an empty list"),
        ([1], "a list"),
        ({}, "a group of settings"),
        (1.5, "1.5"),
        ("redis://:pw@h", '"redis://***@h"'),
    ],
)
def test_show(value: object, text: str) -> None:
    assert show(value) == text
