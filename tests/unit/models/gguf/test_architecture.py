"""Which layers keep what, for the families that differ from plain attention. Numbers follow llama.cpp's hparams."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.architecture import Layer
from llama_gguf.models.gguf.header import SkippedArray, Value
from support.gguf_headers import PLAIN, architecture_of


def test_plain() -> None:
    found = architecture_of("llama", **PLAIN)
    assert found.layers == (Layer(256, 256, 0, 0),) * 8
    assert (found.width, found.layer_heads, found.trained_context) == (1024, (8,) * 8, 8192)
    assert found.experts_used == 0


def test_no_key_heads_given_means_as_many_as_heads() -> None:
    values: dict[str, Any] = {key: value for key, value in PLAIN.items() if key != "attention__head_count_kv"}
    assert architecture_of("phi2", **values).layers[0] == Layer(1024, 1024, 0, 0)


def test_heads_that_differ_by_layer() -> None:
    found = architecture_of("openelm", **PLAIN | {"attention__head_count_kv": (1, 2, 3, 4) * 2})
    assert [layer.key_width for layer in found.layers] == [128, 256, 384, 512] * 2
    with pytest.raises(ModelError, match=r"openelm\.attention\.head_count_kv has 4 values for 8 layers"):
        architecture_of("openelm", **PLAIN | {"attention__head_count_kv": (1, 2, 3, 4)})


def test_vocabulary() -> None:
    tokens: dict[str, Value] = {"tokenizer.ggml.tokens": SkippedArray(32000)}
    assert architecture_of("llama", tokens, **PLAIN).vocabulary == 32000
    assert architecture_of("llama", **PLAIN | {"vocab_size": 77}).vocabulary == 77


def test_windowed_layers_may_have_other_widths() -> None:
    found = architecture_of(
        "gemma4",
        **PLAIN,
        attention__key_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=128,
        attention__sliding_window=64,
        attention__sliding_window_pattern=(True, False) * 4,
        attention__shared_kv_layers=2,
    )
    assert found.layers[:2] == (Layer(512, 256, 64, 0), Layer(1024, 256, 0, 0))
    assert [layer.key_width > 0 for layer in found.layers] == [True] * 6 + [False] * 2


def test_gemma3n_shares_the_cache_of_its_later_layers() -> None:
    found = architecture_of("gemma3n", **PLAIN | {"block_count": 30, "attention__sliding_window": 512})
    assert sum(layer.key_width > 0 for layer in found.layers) == 20


def test_latent_attention_keeps_keys_only() -> None:
    found = architecture_of(
        "deepseek2",
        **PLAIN | {"attention__head_count_kv": 1},
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )
    assert found.layers[0] == Layer(576, 0, 0, 0)


def test_experts() -> None:
    found = architecture_of("qwen3moe", **PLAIN, expert_count=128, expert_used_count=8, expert_feed_forward_length=768)
    assert found.experts_used == 8
    assert architecture_of("hunyuan-moe", **PLAIN, expert_count=1, expert_used_count=1).experts_used == 0


@pytest.mark.parametrize("name", ["glm4moe", "exaone4", "qwen35", "deepseek2"])
def test_layers_that_predict_more_tokens_keep_nothing(name: str) -> None:
    found = architecture_of(name, **PLAIN | {"nextn_predict_layers": 1})
    assert (len(found.layers), found.trunk) == (8, 7)
    assert found.layers[-1] == Layer(0, 0, 0, 0)
    assert sum(layer.key_width > 0 for layer in found.layers) == (1 if name == "qwen35" else 7)
    assert found.loads_more == (name != "exaone4")
    assert found.prediction == (Layer(256, 256, 0, 0),), "what they would keep if they were used"


def test_only_where_llama_cpp_leaves_them_out() -> None:
    found = architecture_of("llama", **PLAIN | {"nextn_predict_layers": 1})
    assert found.layers[-1].key_width == 256
    assert found.trunk >= len(found.layers)


def test_a_model_that_runs_through_its_layers_twice() -> None:
    assert len(architecture_of("nanbeige", **PLAIN, num_loops=2).layers) == 16
    assert len(architecture_of("llama", **PLAIN, num_loops=2).layers) == 8


WITHOUT = object()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_count": 2_000_000}, "llama.block_count is 2000000, expected 1 to 512"),
        ({"block_count": (1 << 32) - 1}, "llama.block_count is 4294967295, expected 1 to 512"),
        ({"block_count": 0}, "llama.block_count is 0, expected 1 to 512"),
        ({"block_count": WITHOUT}, "it has no llama.block_count"),
        ({"block_count": 8.0}, "llama.block_count is 8.0, expected a whole number"),
        ({"block_count": True}, "llama.block_count is True, expected a whole number"),
        ({"block_count": "8"}, "llama.block_count is '8', expected a whole number"),
        ({"block_count": SkippedArray(5000)}, "llama.block_count is an array of 5000, expected a whole number"),
        ({"embedding_length": WITHOUT}, "it has no llama.embedding_length"),
        ({"embedding_length": 0}, "llama.embedding_length is 0, expected 1 to 1048576"),
        ({"context_length": WITHOUT}, "it has no llama.context_length"),
        ({"attention__head_count_kv": -8}, "llama.attention.head_count_kv is -8, expected 0 to 16384"),
        ({"attention__head_count_kv": (2,) * 7 + (-8,)}, "llama.attention.head_count_kv is -8"),
        ({"attention__head_count_kv": (2.0,) * 7 + (math.nan,)}, "head_count_kv is 2.0, expected a whole number"),
        ({"attention__head_count_kv": (math.nan,) * 8}, "head_count_kv is nan, expected a whole number"),
        ({"attention__head_count_kv": (math.inf,) * 8}, "head_count_kv is inf, expected a whole number"),
        ({"attention__head_count": (math.nan,) * 8}, "head_count is nan, expected a whole number"),
        ({"attention__key_length": -128}, "llama.attention.key_length is -128"),
        ({"attention__value_length": 1 << 40}, f"llama.attention.value_length is {1 << 40}"),
        ({"feed_forward_length": (-1,) * 8}, "llama.feed_forward_length is -1"),
        ({"expert_count": 1025, "expert_used_count": 8}, "llama.expert_count is 1025, expected 0 to 1024"),
        ({"expert_count": 8, "expert_used_count": 9}, "expert_used_count is 9, expected 1 to the 8 of expert_count"),
        ({"expert_count": 8}, "expert_used_count is 0, expected 1 to the 8 of expert_count"),
        ({"expert_used_count": 2}, "llama.expert_used_count is 2, expected 0"),
        ({"nextn_predict_layers": 9}, "nextn_predict_layers is 9, expected at most the 8 layers of block_count"),
        ({"vocab_size": -5}, "llama.vocab_size is -5"),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused_with_the_place_and_what_to_do(change: dict[str, Any], message: str) -> None:
    values = {key: value for key, value in {**PLAIN, **change}.items() if value is not WITHOUT}
    with pytest.raises(ModelError) as caught:
        architecture_of("llama", **values)
    assert message in caught.value.message
    assert caught.value.message.startswith("x is not a model that llama-server loads: ")
    assert (caught.value.code, caught.value.permanent) == ("model_unsupported", True)
    assert "another conversion" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llama5", "its architecture is 'llama5', which the engine does not know (the nearest it knows is llama)"),
        ("zzzz", "its architecture is 'zzzz', which the engine does not know"),
        ("", "it has no general.architecture"),
        ("clip", "it is a multimodal projector"),
        ("gptj", "its architecture is 'gptj', which the engine does not know"),
    ],
)
def test_an_architecture_that_the_engine_does_not_load(name: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        architecture_of(name, **PLAIN)
    assert message in caught.value.message
    assert "newer release" in caught.value.hint


def test_encoders_keep_nothing() -> None:
    assert architecture_of("bert", **PLAIN).layers[0] == Layer(0, 0, 0, 0)
