"""Which layers have a window or a state, for the families that differ. Rules and numbers are llama.cpp's."""

from __future__ import annotations

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.architecture import Layer
from llama_gguf.models.gguf.header import SkippedArray, Value
from support.gguf_headers import PLAIN, architecture_of

PATTERN = "attention__sliding_window_pattern"
WINDOW: dict[str, Value] = {"attention__sliding_window": 64}
LFM: dict[str, Value] = {"attention__head_count_kv": (0, 2) * 4, "shortconv__l_cache": 3}


def windows(name: str, **values: Value) -> list[int]:
    return [layer.window for layer in architecture_of(name, **PLAIN | values).layers]


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
        ("mistral3", WINDOW | {PATTERN: (True,) * 8}, [0] * 8),
        ("phi3", {"attention__sliding_window": 4096}, [0] * 8),
        ("exaone4", WINDOW | {PATTERN: 0}, [64] * 8),
        ("lfm2", WINDOW | LFM, [0, 64] * 4),
        ("lfm2", LFM, [0] * 8),
        ("step35", WINDOW | {PATTERN: (False, True) * 4}, [0, 64] * 4),
        ("granite_swa", WINDOW | {PATTERN: (1, 0) * 4}, [64, 0] * 4),
    ],
)  # fmt: skip
def test_windows(name: str, values: dict[str, Value], expected: list[int]) -> None:
    assert windows(name, **values) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention__sliding_window": -64, PATTERN: 2}, "attention.sliding_window is -64"),
        ({"attention__sliding_window": 64.0}, "attention.sliding_window is 64.0, expected a whole number"),
        (WINDOW | {PATTERN: -3}, "sliding_window_pattern is -3"),
        (WINDOW | {PATTERN: (True,) * 513}, "sliding_window_pattern has 513 values, more than 512 layers"),
        (WINDOW | {PATTERN: SkippedArray(9999)}, "sliding_window_pattern has 9999 values"),
        (WINDOW | {PATTERN: (1.5,) * 8}, "sliding_window_pattern is 1.5, expected a whole number"),
    ],
)
def test_windows_that_lie(values: dict[str, Value], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        architecture_of("gemma3", **PLAIN | values)
    assert message in caught.value.message


def test_a_list_of_windows_that_llama_server_does_not_do_without() -> None:
    with pytest.raises(ModelError, match=r"it has no gemma4\.attention\.sliding_window_pattern"):
        architecture_of("gemma4", **PLAIN | WINDOW)


SSM: dict[str, Value] = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 2048,
    "ssm__state_size": 128,
    "ssm__group_count": 1,
}
STATE = 3 * (2048 + 2 * 128) + 128 * 2048


def test_recurrent_layers() -> None:
    mamba = architecture_of("mamba2", **PLAIN, **SSM)
    assert mamba.layers == (Layer(0, 0, 0, STATE),) * 8
    hybrid = architecture_of("qwen3next", **PLAIN, **SSM)
    assert [layer.state_floats for layer in hybrid.layers] == [STATE, STATE, STATE, 0] * 2
    assert [layer.key_width for layer in hybrid.layers] == [0, 0, 0, 256] * 2
    listed = architecture_of("qwen3next", **PLAIN | {"attention__recurrent_layers": (True, False) * 4}, **SSM)
    assert [layer.state_floats for layer in listed.layers] == [STATE, 0] * 4
    assert [layer.key_width for layer in listed.layers] == [0, 256] * 4
    wider = architecture_of("qwen35", **PLAIN | {"full_attention_interval": 2}, **SSM)
    assert [layer.key_width for layer in wider.layers] == [0, 256] * 4
    jamba = architecture_of("jamba", **PLAIN | {"attention__head_count_kv": (0, 0, 2, 0) * 2}, **SSM)
    assert [layer.key_width for layer in jamba.layers] == [0, 0, 256, 0] * 2
    assert [layer.state_floats for layer in jamba.layers] == [STATE, STATE, 0, STATE] * 2
    both = architecture_of("falcon-h1", **PLAIN, **SSM)
    assert both.layers[0] == Layer(256, 256, 0, STATE)
    nemotron = architecture_of(
        "nemotron_h",
        **PLAIN | {"attention__head_count_kv": (0, 0, 2, 0) * 2, "feed_forward_length": (0, 4096, 0, 0) * 2},
        **SSM,
    )
    assert [layer.state_floats > 0 for layer in nemotron.layers] == [True, False, False, True] * 2


def test_other_kinds_of_state() -> None:
    rwkv = architecture_of("rwkv6", **PLAIN | {"attention__head_count_kv": 0}, wkv__head_size=64)
    assert rwkv.layers[0].state_floats == 1024 * 2 + 1024 * 64
    lfm = architecture_of("lfm2", **PLAIN | {"attention__head_count_kv": (0, 2) * 4}, shortconv__l_cache=3)
    assert [layer.state_floats for layer in lfm.layers] == [2048, 0] * 4
    kimi = architecture_of(
        "kimi-linear", **PLAIN | {"attention__head_count_kv": (0, 1) * 4}, kda__head_dim=128, ssm__conv_kernel=4
    )
    assert kimi.layers[0].state_floats == 3 * 3 * 8 * 128 + 128 * 128 * 8


def test_a_state_is_kept_only_where_the_family_has_one() -> None:
    assert architecture_of("llama", **PLAIN, **SSM).layers == (Layer(256, 256, 0, 0),) * 8
    minimax = architecture_of("minimax-01", **PLAIN)
    assert [layer.state_floats for layer in minimax.layers] == [128 * 128 * 8] * 7 + [0]
    with pytest.raises(ModelError, match="full_attention_interval is 0, expected 1"):
        architecture_of("qwen3next", **PLAIN, **SSM, full_attention_interval=0)
    with pytest.raises(ModelError, match="state_size is -128"):
        architecture_of("mamba2", **PLAIN | SSM | {"ssm__state_size": -128})
