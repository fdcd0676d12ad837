"""Well-known models against tables made by hand from their papers' and configurations' numbers.

Bytes per token with an f16 cache, of layers that attend to everything and of those within a window; bytes of state of a
slot; and parameters, from the shapes of the tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import Header, SkippedArray, Value
from llama_gguf.models.memory.estimate import Weights
from llama_gguf.models.memory.plan import Machine, plan_memory
from llama_gguf.settings.sections.engine import Engine
from support.family_models import FAMILIES


@dataclass(frozen=True)
class Known:
    """One model: its hyperparameters, and what a person computes from them."""

    name: str
    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int | tuple[int, ...]
    head: int
    full: int  # bytes per token, of layers that attend to everything
    windowed: int = 0  # bytes per token within the window
    window: int = 0
    state: int = 0  # bytes per slot
    more: dict[str, Value] = field(default_factory=dict)


def hybrid(layers: int, attending: tuple[int, ...], heads: int) -> tuple[int, ...]:
    return tuple(heads if index in attending else 0 for index in range(layers))


NEMOTRON_PATTERN = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"  # of the 8B model: mixer, dense, attention
KNOWN = [
    Known("Llama 3.3 70B", "llama", 80, 8192, 64, 8, 128, full=80 * 2 * 8 * 128 * 2),
    Known("Qwen 3 30B-A3B", "qwen3moe", 48, 2048, 32, 4, 128, full=48 * 2 * 4 * 128 * 2,
          more={"expert_count": 128, "expert_used_count": 8}),
    Known("Qwen3-Next 80B-A3B", "qwen3next", 48, 2048, 16, 2, 256, full=12 * 2 * 2 * 256 * 2,
          state=36 * 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096),
          more={"expert_count": 512, "expert_used_count": 10, "ssm.conv_kernel": 4, "ssm.inner_size": 4096,
                "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 32}),
    Known("DeepSeek V3", "deepseek2", 61, 7168, 128, 1, 576, full=61 * (512 + 64) * 2,
          more={"attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.value_length": 512,
                "expert_count": 256, "expert_used_count": 8}),
    Known("DeepSeek V3 with its MTP layer", "deepseek2", 62, 7168, 128, 1, 576, full=61 * (512 + 64) * 2,
          more={"attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.value_length": 512,
                "expert_count": 256, "expert_used_count": 8, "nextn_predict_layers": 1}),
    Known("Kimi K2", "deepseek2", 61, 7168, 64, 1, 576, full=61 * (512 + 64) * 2,
          more={"attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.value_length": 512,
                "expert_count": 384, "expert_used_count": 8}),
    Known("gpt-oss 20B", "gpt-oss", 24, 2880, 64, 8, 64, full=12 * 2 * 8 * 64 * 2, windowed=12 * 2 * 8 * 64 * 2,
          window=128, more={"expert_count": 32, "expert_used_count": 4}),
    Known("gpt-oss 120B", "gpt-oss", 36, 2880, 64, 8, 64, full=18 * 2 * 8 * 64 * 2, windowed=18 * 2 * 8 * 64 * 2,
          window=128, more={"expert_count": 128, "expert_used_count": 4}),
    Known("Gemma 3 27B", "gemma3", 62, 5376, 32, 16, 128, full=10 * 2 * 16 * 128 * 2, windowed=52 * 2 * 16 * 128 * 2,
          window=1024),
    Known("Mistral Small 24B", "llama", 40, 5120, 32, 8, 128, full=40 * 2 * 8 * 128 * 2),
    Known("Phi-4", "phi3", 40, 5120, 40, 10, 128, full=40 * 2 * 10 * 128 * 2),
    Known("Granite 4 H Small", "granitehybrid", 40, 4096, 32, hybrid(40, (5, 15, 25, 35), 8), 128,
          full=4 * 2 * 8 * 128 * 2, state=36 * 4 * (3 * (8192 + 2 * 128) + 128 * 8192),
          more={"expert_count": 72, "expert_used_count": 10, "ssm.conv_kernel": 4, "ssm.inner_size": 8192,
                "ssm.state_size": 128, "ssm.group_count": 1, "ssm.time_step_rank": 128}),
    Known("Nemotron-H 8B", "nemotron_h", 52, 4096, 32, tuple(8 if kind == "*" else 0 for kind in NEMOTRON_PATTERN), 128,
          full=4 * 2 * 8 * 128 * 2, state=24 * 4 * (3 * (8192 + 2 * 8 * 128) + 128 * 8192),
          more={"feed_forward_length": tuple(21504 if kind == "-" else 0 for kind in NEMOTRON_PATTERN),
                "ssm.conv_kernel": 4, "ssm.inner_size": 8192, "ssm.state_size": 128, "ssm.group_count": 8,
                "ssm.time_step_rank": 128}),
    Known("GLM-4.5-Air", "glm4moe", 47, 4096, 96, 8, 128, full=46 * 2 * 8 * 128 * 2,
          more={"nextn_predict_layers": 1, "expert_count": 128, "expert_used_count": 8}),
    Known("LFM2 1.2B", "lfm2", 16, 2048, 32, hybrid(16, (2, 5, 8, 10, 12, 14), 8), 64, full=6 * 2 * 8 * 64 * 2,
          state=10 * 4 * 2 * 2048, more={"shortconv.l_cache": 3}),
]  # fmt: skip


def weights(known: Known) -> Weights:
    values: dict[str, Value] = {
        "context_length": 131072,
        "block_count": known.layers,
        "embedding_length": known.width,
        "attention.head_count": known.heads,
        "attention.head_count_kv": known.kv_heads,
        "attention.key_length": known.head,
        "attention.value_length": known.head,
        "feed_forward_length": 1024,
        **known.more,
    }
    if known.window:
        values["attention.sliding_window"] = known.window
    named: dict[str, Value] = {f"{known.architecture}.{key}": value for key, value in values.items()}
    named |= {"general.architecture": known.architecture, "tokenizer.ggml.tokens": SkippedArray(1000)}
    return Weights((), read_architecture(Header(Path("/m"), 0, 3, named, (), 0)))


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
@pytest.mark.parametrize(("slots", "context"), [(1, 32768), (4, 8192)])
def test_caches_as_a_person_computes_them(known: Known, slots: int, context: int) -> None:
    engine = Engine(slots=slots, context_per_slot=context)
    items = {item.name: item.host for item in plan_memory(weights(known), engine, Machine(0, None)).items}
    cells = -(-(known.window + 512) // 256) * 256 if known.window else 0
    assert items.get("KV cache", 0) == slots * (context * known.full + cells * known.windowed)
    assert items.get("recurrent state", 0) == slots * known.state


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
@pytest.mark.parametrize(("kind", "part"), [("q8_0", 34 / 64), ("q4_0", 18 / 64), ("f32", 2.0)])
def test_other_types_of_cache_in_proportion(known: Known, kind: str, part: float) -> None:
    plain, other = (
        {
            item.name: item.host
            for item in plan_memory(
                weights(known), Engine.model_validate({"cache_type_k": some, "cache_type_v": some}), Machine(0, None)
            ).items
        }
        for some in ("f16", kind)
    )
    assert other["KV cache"] == plain["KV cache"] * part
    assert other.get("recurrent state") == plain.get("recurrent state"), "state is kept with 32 bits"


def parameters(family: str, layers: dict[int, int]) -> float:
    """Return the billions of parameters with each block of the small model repeated: block -> how often."""
    _, _, tensors, _ = FAMILIES[family]()
    counts: dict[int, Any] = {}
    rest = 0
    for name, shape in tensors.items():
        if name.startswith("blk."):
            index = int(name.split(".")[1])
            counts[index] = counts.get(index, 0) + prod(shape)
        else:
            rest += prod(shape)
    return float((rest + sum(counts[index] * times for index, times in layers.items())) / 1e9)


@pytest.mark.parametrize(
    ("family", "layers", "billions"),
    [
        ("Llama 3.3 70B", {0: 80}, 70.55),
        ("Mixtral 8x7B", {0: 32}, 46.7),
        ("Llama 4 Scout", {0: 48}, 107.8),
        ("Gemma 4 31B", {0: 50, 5: 10}, 30.7),
        ("Mamba 2", {0: 64}, 7.27),
        ("Granite 4 hybrid", {0: 36, 2: 4}, 32.2),
        ("Qwen3-Next", {0: 36, 3: 12}, 79.7),
        ("LFM2", {0: 10, 2: 6}, 1.3),
        ("DeepSeek V3", {0: 3, 1: 58}, 671.0),
        ("gpt-oss 20B", {0: 24}, 20.9),
        ("GLM-4.5-Air", {0: 1, 1: 45, 3: 1}, 110.5),
        ("Phi-4", {0: 40}, 14.66),
    ],
)
def test_the_shapes_are_those_of_the_published_models(family: str, layers: dict[int, int], billions: float) -> None:
    """Else the comparison with llama-server would be one of made-up sizes."""
    assert parameters(family, layers) == pytest.approx(billions, rel=0.02)
