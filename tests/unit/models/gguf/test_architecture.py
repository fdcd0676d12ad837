"""Which layers keep what, for the families that differ from plain attention. Numbers follow llama.cpp's hparams."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.models.gguf.architecture import Architecture, Layer, read_architecture
from llama_gguf.models.gguf.header import Header, SkippedArray, Value


def read(name: str, **values: Value) -> Architecture:
    metadata: dict[str, Value] = {"general.architecture": name}
    metadata |= {f"{name}.{key.replace('__', '.')}": value for key, value in values.items()}
    return read_architecture(Header(Path("x"), 0, 3, metadata, (), 0))


PLAIN: dict[str, Value] = {
    "block_count": 8,
    "embedding_length": 1024,
    "attention__head_count": 8,
    "attention__head_count_kv": 2,
    "feed_forward_length": 4096,
    "context_length": 8192,
}


def test_plain() -> None:
    found = read("llama", **PLAIN)
    assert found.layers == (Layer(256, 256, 0, 0),) * 8
    assert (found.width, found.query_width, found.heads, found.trained_context) == (1024, 1024, 8, 8192)
    assert (found.feed_forward, found.experts_used, found.expert_feed_forward) == (4096, 0, 0)


def test_no_key_heads_given_means_as_many_as_heads() -> None:
    values = {key: value for key, value in PLAIN.items() if key != "attention__head_count_kv"}
    assert read("phi2", **values).layers[0] == Layer(1024, 1024, 0, 0)


def test_heads_that_differ_by_layer() -> None:
    found = read("openelm", **PLAIN | {"attention__head_count_kv": (1, 2, 3, 4)})
    assert [layer.key_width for layer in found.layers] == [128, 256, 384, 512, 1024, 1024, 1024, 1024]


def test_vocabulary() -> None:
    metadata: dict[str, Value] = {"general.architecture": "llama", "tokenizer.ggml.tokens": SkippedArray(32000)}
    assert read_architecture(Header(Path("x"), 0, 3, metadata, (), 0)).vocabulary == 32000
    assert read("llama", **PLAIN | {"vocab_size": 77}).vocabulary == 77


PATTERN = "attention__sliding_window_pattern"
WINDOW: dict[str, Value] = {"attention__sliding_window": 64}


def windows(name: str, **values: Value) -> list[int]:
    return [layer.window for layer in read(name, **PLAIN | values).layers]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("gemma3", {"attention__sliding_window": 512}, [512] * 5 + [0] + [512] * 2),
        ("gemma3", {}, [0] * 8),
        ("gemma2", {}, [4096, 0] * 4),
        ("gpt-oss", {"attention__sliding_window": 128}, [128, 0] * 4),
        ("cohere2", {"attention__sliding_window": 64}, [64, 64, 64, 0] * 2),
        ("cohere2moe", {"attention__sliding_window": 64}, [0, 64, 64, 64] * 2),
        ("llama4", {}, [8192, 8192, 8192, 0] * 2),
        ("llama4", {"attention__sliding_window": 0}, [0] * 8),
        ("gemma4", WINDOW | {PATTERN: (True, False) * 4}, [64, 0] * 4),
        ("gemma4", WINDOW | {PATTERN: (True,) * 2}, [64] * 2 + [0] * 6),
        ("exaone4", WINDOW | {PATTERN: 2}, [64, 0] * 4),
        ("mistral3", {"attention__sliding_window": 4096}, [0] * 8),
    ],
)  # fmt: skip
def test_windows(name: str, values: dict[str, Value], expected: list[int]) -> None:
    assert windows(name, **values) == expected


def test_windowed_layers_may_have_other_widths() -> None:
    found = read(
        "gemma4",
        **PLAIN,
        attention__key_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=128,
        attention__sliding_window=64,
        attention__sliding_window_pattern=(True, False) * 4,
        attention__shared_kv_layers=2,
    )
    assert found.layers[:2] == (Layer(512, 256, 64, 0), Layer(1024, 1024, 0, 0))
    assert [layer.key_width > 0 for layer in found.layers] == [True] * 6 + [False] * 2


def test_gemma3n_shares_the_cache_of_its_later_layers() -> None:
    found = read("gemma3n", **PLAIN | {"block_count": 30, "attention__sliding_window": 512})
    assert sum(layer.key_width > 0 for layer in found.layers) == 20


def test_latent_attention_keeps_keys_only() -> None:
    found = read(
        "deepseek2",
        **PLAIN | {"attention__head_count_kv": 1},
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )
    assert found.layers[0] == Layer(576, 0, 0, 0)


def test_experts() -> None:
    found = read("qwen3moe", **PLAIN, expert_count=128, expert_used_count=8, expert_feed_forward_length=768)
    assert (found.experts_used, found.expert_feed_forward) == (8, 768)
    assert read("mixtral", **PLAIN, expert_count=8, expert_used_count=2).expert_feed_forward == 4096


SSM: dict[str, Value] = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 2048,
    "ssm__state_size": 128,
    "ssm__group_count": 1,
}
STATE = 3 * (2048 + 2 * 128) + 128 * 2048


def test_recurrent_layers() -> None:
    mamba = read("mamba2", **PLAIN, **SSM)
    assert mamba.layers == (Layer(0, 0, 0, STATE),) * 8
    hybrid = read("qwen3next", **PLAIN, **SSM)
    assert [layer.state_floats for layer in hybrid.layers] == [STATE, STATE, STATE, 0] * 2
    assert [layer.key_width for layer in hybrid.layers] == [0, 0, 0, 256] * 2
    jamba = read("jamba", **PLAIN | {"attention__head_count_kv": (0, 0, 2, 0) * 2}, **SSM)
    assert [layer.key_width for layer in jamba.layers] == [0, 0, 256, 0] * 2
    assert [layer.state_floats for layer in jamba.layers] == [STATE, STATE, 0, STATE] * 2
    both = read("falcon-h1", **PLAIN, **SSM)
    assert both.layers[0] == Layer(256, 256, 0, STATE)
    nemotron = read(
        "nemotron_h",
        **PLAIN | {"attention__head_count_kv": (0, 0, 2, 0) * 2, "feed_forward_length": (0, 4096, 0, 0) * 2},
        **SSM,
    )
    assert [layer.state_floats > 0 for layer in nemotron.layers] == [True, False, False, True] * 2


def test_other_kinds_of_state() -> None:
    rwkv = read("rwkv6", **PLAIN | {"attention__head_count_kv": 0}, wkv__head_size=64)
    assert rwkv.layers[0].state_floats == 1024 * 2 + 1024 * 64
    lfm = read("lfm2", **PLAIN | {"attention__head_count_kv": (0, 2) * 4}, shortconv__l_cache=3)
    assert [layer.state_floats for layer in lfm.layers] == [2048, 0] * 4
    kimi = read(
        "kimi-linear", **PLAIN | {"attention__head_count_kv": (0, 1) * 4}, kda__head_dim=128, ssm__conv_kernel=4
    )
    assert kimi.layers[0].state_floats == 3 * 3 * 8 * 128 + 128 * 128 * 8


def test_encoders_keep_nothing() -> None:
    assert read("bert", **PLAIN).layers[0] == Layer(0, 0, 0, 0)
