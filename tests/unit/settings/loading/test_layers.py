"""Layers over one another: a source, a group or a value from above."""

from __future__ import annotations

from llama_gguf.settings.loading.load import loads
from support.configuration import FILE, MINIMAL, told


def test_a_source_above_replaces_the_source_below() -> None:
    text = f"model:\n  url: https://example.com/a.gguf\n  token_env: TOKEN\n  sha256: {'a' * 64}\n  aliases: [chat]\n"
    loaded = loads(text, FILE, {"MODEL_NAME": "b.gguf"})
    model = loaded.settings.model
    assert (model.name, model.url, model.token_env, model.sha256) == ("b.gguf", None, None, None)
    assert model.aliases == ("chat",), "what the operator calls it stays"
    assert [problem.code for problem in loaded.problems] == ["dropped-checksum"]
    assert loaded.problems[0].line == 4


def test_another_revision_refines_the_repository_below() -> None:
    text = "model: {hf: {repo: a/b, file: c.gguf}, token_env: TOKEN}\n"
    model = loads(text, FILE, {"LLAMA_GGUF__MODEL__HF__REVISION": "v2"}).settings.model
    assert model.hf is not None
    assert (model.hf.repo, model.hf.revision, model.token_env) == ("a/b", "v2", "TOKEN")


def test_companions_of_a_replaced_model_are_told() -> None:
    text = "model: {path: /a.gguf, mmproj: {path: /p.gguf}}\n"
    assert told(text, {"MODEL_PATH": "/b.gguf"}) == [("warning", "kept-companion", "model.mmproj")]
    cleared = {"MODEL_PATH": "/b.gguf", "LLAMA_GGUF__MODEL__MMPROJ": "null"}
    assert loads(text, FILE, cleared).settings.model.mmproj is None


def test_value_where_a_group_belongs_is_told_even_if_a_variable_sets_below_it() -> None:
    assert told(f"{MINIMAL}gateway: 8000\n", {"PORT": "9000"}) == [("error", "wrong-type", "gateway")]


def test_variable_fills_a_group_that_the_file_set_to_null() -> None:
    text = f"{MINIMAL}gateway: null\n"
    assert loads(text, FILE, {"LLAMA_GGUF__GATEWAY__PORT": "9000"}).settings.gateway.port == 9000
