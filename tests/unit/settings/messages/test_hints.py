"""Hints: what would be right in place of a wrong value."""

from __future__ import annotations

import pytest

from llama_gguf.settings.loading.origins import parts
from llama_gguf.settings.messages.hints import hint, show
from llama_gguf.settings.schema_tree import settings_schema

SCHEMA = settings_schema()


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
    assert hint(parts(name), given, SCHEMA) == expected


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
