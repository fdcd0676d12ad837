"""Models of the families whose layers differ, at their published sizes but with few layers, and a hole for weights.

llama-server projects the memory of such a file before it reads a weight, so what it reports for each family can be
compared with ours. Shapes are in ggml's order, as llama.cpp's loaders have them (src/models/*.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np

from support.sparse_model import add_vocabulary, finish_sparse

Shape = tuple[int, ...]
Value = int | float | list[int] | list[bool]
Family = tuple[str, dict[str, Value], dict[str, Shape], int]
"""Architecture, hyperparameters, tensors, size of the vocabulary."""


def _plain(layers: int, width: int, heads: int, kv_heads: int | list[int], head: int) -> dict[str, Value]:
    return {
        "context_length": 131072,
        "embedding_length": width,
        "block_count": layers,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": head,
        "feed_forward_length": 0,
    }


def _attention(width: int, queries: int, keys: int, head: int = 0, *, norms: bool = False) -> dict[str, Shape]:
    found: dict[str, Shape] = {
        "attn_norm.weight": (width,),
        "attn_q.weight": (width, queries),
        "attn_k.weight": (width, keys),
        "attn_v.weight": (width, keys),
        "attn_output.weight": (queries, width),
    }
    return found | ({"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)} if norms else {})


def _feed_forward(width: int, inner: int, *, gate: bool = True, norm: bool = True) -> dict[str, Shape]:
    found: dict[str, Shape] = {"ffn_up.weight": (width, inner), "ffn_down.weight": (inner, width)}
    return (
        found | ({"ffn_gate.weight": (width, inner)} if gate else {}) | ({"ffn_norm.weight": (width,)} if norm else {})
    )


def _experts(width: int, inner: int, count: int, shared: int = 0, *, norm: bool = True) -> dict[str, Shape]:
    found: dict[str, Shape] = {
        "ffn_gate_inp.weight": (width, count),
        "ffn_gate_exps.weight": (width, inner, count),
        "ffn_up_exps.weight": (width, inner, count),
        "ffn_down_exps.weight": (inner, width, count),
    }
    if shared:
        found |= _shared(width, shared)
    return found | ({"ffn_norm.weight": (width,)} if norm else {})


def _shared(width: int, inner: int) -> dict[str, Shape]:
    return {
        "ffn_gate_shexp.weight": (width, inner),
        "ffn_up_shexp.weight": (width, inner),
        "ffn_down_shexp.weight": (inner, width),
    }


def _mamba2(width: int, inner: int, state: int, groups: int, heads: int) -> dict[str, Shape]:
    mixed = inner + 2 * groups * state
    return {
        "attn_norm.weight": (width,),
        "ssm_in.weight": (width, inner + mixed + heads),
        "ssm_conv1d.weight": (4, mixed),
        "ssm_conv1d.bias": (mixed,),
        "ssm_dt.bias": (heads,),
        "ssm_a": (1, heads),
        "ssm_d": (1, heads),
        "ssm_norm.weight": (inner // groups, groups),
        "ssm_out.weight": (inner, width),
    }


def _ssm(inner: int, state: int, groups: int, heads: int, kernel: int = 4) -> dict[str, Value]:
    return {
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": heads,
        "ssm.group_count": groups,
    }


def _whole(
    width: int, vocabulary: int, blocks: list[dict[str, Shape]], *, norm: str = "output_norm"
) -> dict[str, Shape]:
    found: dict[str, Shape] = {
        "token_embd.weight": (width, vocabulary),
        f"{norm}.weight": (width,),
        "output.weight": (width, vocabulary),
    }
    for index, block in enumerate(blocks):
        found |= {f"blk.{index}.{name}": shape for name, shape in block.items()}
    return found


def mixtral() -> Family:
    block = _attention(4096, 4096, 1024) | _experts(4096, 14336, 8)
    values = _plain(4, 4096, 32, 8, 128) | {"feed_forward_length": 14336, "expert_count": 8, "expert_used_count": 2}
    return "llama", values, _whole(4096, 32000, [block] * 4), 32000


def llama4_scout() -> Family:
    block = _attention(5120, 5120, 1024) | _experts(5120, 8192, 16, 8192)
    values = _plain(4, 5120, 40, 8, 128) | {
        "feed_forward_length": 16384,
        "expert_count": 16,
        "expert_used_count": 1,
        "expert_feed_forward_length": 8192,
        "interleave_moe_layer_step": 1,
    }
    return "llama4", values, _whole(5120, 202048, [block] * 4), 202048


def llama_dense() -> Family:
    block = _attention(8192, 8192, 1024) | _feed_forward(8192, 28672)
    return (
        "llama",
        _plain(4, 8192, 64, 8, 128) | {"feed_forward_length": 28672},
        _whole(8192, 128256, [block] * 4),
        128256,
    )


def gemma4() -> Family:
    """31B: no embeddings per layer, one layer in six attends to everything, with keys that serve as values."""
    width, inner = 5376, 21504
    local = _attention(width, 32 * 256, 16 * 256, 256, norms=True)
    full = _attention(width, 32 * 512, 4 * 512, 512, norms=True)
    del full["attn_v.weight"]
    more: dict[str, Shape] = {"post_attention_norm.weight": (width,), "post_ffw_norm.weight": (width,)}
    more |= _feed_forward(width, inner)
    blocks = [(local if (index + 1) % 6 else full) | more for index in range(6)]
    values = _plain(6, width, 32, [16] * 5 + [4], 512) | {
        "feed_forward_length": inner,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window": 1024,
        "attention.sliding_window_pattern": [True] * 5 + [False],
        "attention.shared_kv_layers": 0,
        "embedding_length_per_layer_input": 0,
        "rope.dimension_count_swa": 256,
    }
    tensors = _whole(width, 262144, blocks)
    tensors["rope_freqs.weight"] = (256,)
    del tensors["output.weight"]
    return "gemma4", values, tensors, 262144


def gemma4_small() -> Family:
    """E4B: embeddings per layer, and later layers that share a cache."""
    width, inner, per_layer = 2560, 10240, 256
    blocks: list[dict[str, Shape]] = []
    for index in range(12):
        head = 512 if (index + 1) % 6 == 0 else 256
        block = _attention(width, 8 * head, 2 * head, head, norms=True) | _feed_forward(width, inner)
        block |= {"post_attention_norm.weight": (width,), "post_ffw_norm.weight": (width,)}
        block |= {
            "inp_gate.weight": (width, per_layer),
            "proj.weight": (per_layer, width),
            "post_norm.weight": (width,),
        }
        blocks.append(block)
    values = _plain(12, width, 8, 2, 512) | {
        "feed_forward_length": inner,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window": 512,
        "attention.sliding_window_pattern": [bool((index + 1) % 6) for index in range(12)],
        "attention.shared_kv_layers": 6,
        "embedding_length_per_layer_input": per_layer,
        "rope.dimension_count_swa": 256,
    }
    tensors = _whole(width, 262144, blocks)
    tensors |= {
        "rope_freqs.weight": (256,),
        "per_layer_token_embd.weight": (per_layer * 12, 262144),
        "per_layer_model_proj.weight": (width, per_layer * 12),
        "per_layer_proj_norm.weight": (per_layer,),
    }
    del tensors["output.weight"]
    return "gemma4", values, tensors, 262144


def mamba2() -> Family:
    block = _mamba2(4096, 8192, 128, 8, 128)
    values = _plain(4, 4096, 0, 0, 0) | _ssm(8192, 128, 8, 128)
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        del values[key]
    return "mamba2", values, _whole(4096, 32768, [block] * 4), 32768


def nemotron_h() -> Family:
    width, inner = 4480, 15680
    attention = _attention(width, 40 * 128, 8 * 128)
    dense = _feed_forward(width, inner, gate=False, norm=False) | {"attn_norm.weight": (width,)}
    mixer = _mamba2(width, 10240, 128, 8, 128)
    values = _plain(4, width, 40, [0, 0, 8, 0], 128) | _ssm(10240, 128, 8, 128)
    values["feed_forward_length"] = [0, inner, 0, inner]
    return "nemotron_h", values, _whole(width, 131072, [mixer, dense, attention, dense]), 131072


def granite_hybrid() -> Family:
    width = 4096
    mixer = _mamba2(width, 8192, 128, 1, 128)
    attention = _attention(width, 4096, 1024)
    experts = _experts(width, 768, 72, 1536)
    values = _plain(4, width, 32, [0, 0, 8, 0], 128) | _ssm(8192, 128, 1, 128)
    values |= {
        "feed_forward_length": 768,
        "expert_count": 72,
        "expert_used_count": 10,
        "expert_shared_feed_forward_length": 1536,
    }
    return (
        "granitehybrid",
        values,
        _whole(width, 100352, [mixer | experts] * 2 + [attention | experts, mixer | experts]),
        100352,
    )


def qwen3next() -> Family:
    width, heads, state, keys = 2048, 32, 128, 16
    inner = heads * state
    mixed = 2 * keys * state + inner
    delta: dict[str, Shape] = {
        "attn_norm.weight": (width,),
        "attn_qkv.weight": (width, mixed),
        "attn_gate.weight": (width, inner),
        "ssm_conv1d.weight": (4, mixed),
        "ssm_dt.bias": (heads,),
        "ssm_a": (heads,),
        "ssm_ba.weight": (width, 2 * heads),
        "ssm_norm.weight": (state,),
        "ssm_out.weight": (inner, width),
    }
    attention = _attention(width, 16 * 256, 2 * 256, 256, norms=True) | {"attn_q.weight": (width, 2 * 16 * 256)}
    experts = _experts(width, 512, 512, 512, norm=False)
    experts |= {"ffn_gate_inp_shexp.weight": (width,), "post_attention_norm.weight": (width,)}
    values = _plain(4, width, 16, 2, 256) | _ssm(inner, state, keys, heads)
    values |= {
        "feed_forward_length": 5120,
        "expert_count": 512,
        "expert_used_count": 10,
        "expert_feed_forward_length": 512,
        "expert_shared_feed_forward_length": 512,
        "rope.dimension_count": 64,
    }
    return "qwen3next", values, _whole(width, 151936, [delta | experts] * 3 + [attention | experts]), 151936


def lfm2() -> Family:
    width, inner = 2048, 8192
    convolution: dict[str, Shape] = {
        "attn_norm.weight": (width,),
        "shortconv.conv.weight": (3, width),
        "shortconv.in_proj.weight": (width, 3 * width),
        "shortconv.out_proj.weight": (width, width),
    }
    dense = _feed_forward(width, inner)
    attention = _attention(width, width, 512, 64, norms=True)
    values = _plain(4, width, 32, [0, 0, 8, 0], 64) | {"feed_forward_length": inner, "shortconv.l_cache": 3}
    blocks = [convolution | dense] * 2 + [attention | dense, convolution | dense]
    return "lfm2", values, _whole(width, 65536, blocks, norm="token_embd_norm"), 65536


def lfm2_windowed() -> Family:
    name, values, tensors, vocabulary = lfm2()
    return name, values | {"attention.sliding_window": 1024}, tensors, vocabulary


def deepseek_v3() -> Family:
    width, heads, latent, rope, nope = 7168, 128, 512, 64, 128
    attention: dict[str, Shape] = {
        "attn_norm.weight": (width,),
        "attn_q_a_norm.weight": (1536,),
        "attn_kv_a_norm.weight": (latent,),
        "attn_q_a.weight": (width, 1536),
        "attn_q_b.weight": (1536, heads * (nope + rope)),
        "attn_kv_a_mqa.weight": (width, latent + rope),
        "attn_k_b.weight": (nope, latent, heads),
        "attn_v_b.weight": (latent, 128, heads),
        "attn_output.weight": (heads * 128, width),
    }
    experts = _experts(width, 2048, 256, 2048) | {"exp_probs_b.bias": (256,)}
    values = _plain(3, width, heads, 1, 576) | {
        "attention.value_length": 512,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": 128,
        "attention.q_lora_rank": 1536,
        "attention.kv_lora_rank": latent,
        "rope.dimension_count": rope,
        "feed_forward_length": 18432,
        "leading_dense_block_count": 1,
        "expert_count": 256,
        "expert_used_count": 8,
        "expert_shared_count": 1,
        "expert_group_count": 8,
        "expert_group_used_count": 4,
        "expert_gating_func": 2,
        "expert_weights_scale": 2.5,
        "expert_feed_forward_length": 2048,
    }
    blocks = [attention | _feed_forward(width, 18432)] + [attention | experts] * 2
    return "deepseek2", values, _whole(width, 129280, blocks), 129280


def gpt_oss() -> Family:
    width, inner, count = 2880, 2880, 32
    block = _attention(width, 64 * 64, 8 * 64) | _experts(width, inner, count, norm=False)
    block |= {
        "post_attention_norm.weight": (width,),
        "attn_sinks.weight": (64,),
        "attn_q.bias": (64 * 64,),
        "attn_k.bias": (8 * 64,),
        "attn_v.bias": (8 * 64,),
        "attn_output.bias": (width,),
        "ffn_gate_inp.bias": (count,),
        "ffn_gate_exps.bias": (inner, count),
        "ffn_up_exps.bias": (inner, count),
        "ffn_down_exps.bias": (width, count),
    }
    values = _plain(4, width, 64, 8, 64) | {
        "feed_forward_length": inner,
        "expert_count": count,
        "expert_used_count": 4,
        "expert_feed_forward_length": inner,
        "attention.sliding_window": 128,
    }
    return "gpt-oss", values, _whole(width, 201088, [block] * 4), 201088


def glm_air() -> Family:
    """GLM-4.5-Air: its last layer predicts more tokens, and is not loaded."""
    width = 4096
    attention = _attention(width, 96 * 128, 8 * 128) | {"post_attention_norm.weight": (width,)}
    experts = _experts(width, 1408, 128, 1408, norm=False) | {"exp_probs_b.bias": (128,)}
    more: dict[str, Shape] = {
        "nextn.eh_proj.weight": (2 * width, width),
        "nextn.enorm.weight": (width,),
        "nextn.hnorm.weight": (width,),
        "nextn.shared_head_norm.weight": (width,),
    }
    dense = _feed_forward(width, 10944, norm=False)
    values = _plain(4, width, 96, 8, 128) | {
        "feed_forward_length": 10944,
        "leading_dense_block_count": 1,
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_shared_count": 1,
        "expert_gating_func": 2,
        "expert_feed_forward_length": 1408,
        "nextn_predict_layers": 1,
        "rope.dimension_count": 64,
    }
    blocks = [attention | dense, attention | experts, attention | experts, attention | experts | more]
    return "glm4moe", values, _whole(width, 151552, blocks), 151552


def phi4() -> Family:
    width, inner = 5120, 17920
    block: dict[str, Shape] = {
        "attn_norm.weight": (width,),
        "attn_qkv.weight": (width, 40 * 128 + 2 * 10 * 128),
        "attn_output.weight": (40 * 128, width),
        "ffn_norm.weight": (width,),
        "ffn_up.weight": (width, 2 * inner),
        "ffn_down.weight": (inner, width),
    }
    values = _plain(4, width, 40, 10, 128) | {"feed_forward_length": inner}
    return "phi3", values, _whole(width, 100352, [block] * 4), 100352


FAMILIES: Mapping[str, Callable[[], Family]] = {
    "Llama 3.3 70B": llama_dense,
    "Mixtral 8x7B": mixtral,
    "Llama 4 Scout": llama4_scout,
    "Gemma 4 31B": gemma4,
    "Gemma 4 E4B": gemma4_small,
    "Mamba 2": mamba2,
    "Nemotron-H": nemotron_h,
    "Granite 4 hybrid": granite_hybrid,
    "Qwen3-Next": qwen3next,
    "LFM2": lfm2,
    "LFM2 with a window": lfm2_windowed,
    "DeepSeek V3": deepseek_v3,
    "gpt-oss 20B": gpt_oss,
    "GLM-4.5-Air": glm_air,
    "Phi-4": phi4,
}


def write_family(path: Path, family: str) -> Path:
    """Write the model of that name and return `path`."""
    name, values, tensors, vocabulary = FAMILIES[family]()
    writer = gguf.GGUFWriter(str(path), name)
    for key, value in values.items():
        if isinstance(value, list):
            writer.add_array(f"{name}.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{name}.{key}", value)
        else:
            writer.add_uint32(f"{name}.{key}", value)
    add_vocabulary(writer, vocabulary)
    total = 0
    for tensor, shape in tensors.items():
        wide = len(shape) > 1 and not tensor.endswith((".bias", "conv.weight", "ssm_conv1d.weight", "ssm_a", "ssm_d"))
        kind = np.dtype(np.float16 if wide and "ssm_norm" not in tensor else np.float32)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        writer.add_tensor_info(tensor, shape[::-1], kind, size)
        total += -(-size // writer.data_alignment) * writer.data_alignment
    return finish_sparse(writer, path, total)
