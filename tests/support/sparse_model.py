"""Writes models of any size that take no disk space: a real header, and a hole where the weights would be.

llama.cpp loads them like any other (their weights are zeros), which shows what memory it would take.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a transformer; the defaults are those of an 8B llama."""

    layers: int = 32
    width: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head: int = 128
    feed_forward: int = 14336
    vocabulary: int = 128256
    experts: int = 0
    experts_used: int = 0
    tied: bool = False


def write_sparse_model(
    path: Path,
    architecture: str,
    size: Dimensions,
    *,
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_K,
    extra: Mapping[str, int | list[int] | list[bool]] | None = None,
) -> Path:
    """Write a model of `architecture` (llama, qwen3moe or gemma3) and return `path`."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(131072)
    writer.add_embedding_length(size.width)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.feed_forward)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.kv_heads)
    writer.add_key_length(size.head)
    writer.add_value_length(size.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size.head)
    if size.experts:
        writer.add_expert_count(size.experts)
        writer.add_expert_used_count(size.experts_used)
        writer.add_expert_feed_forward_length(size.feed_forward)
    for key, value in (extra or {}).items():
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        else:
            writer.add_uint32(f"{architecture}.{key}", value)
    add_vocabulary(writer, size.vocabulary)
    total = 0
    for name, shape in _tensors(architecture, size).items():
        kind = quantisation if len(shape) > 1 and "gate_inp" not in name else gguf.GGMLQuantizationType.F32
        total += _add(writer, name, shape, kind)
    return finish_sparse(writer, path, total)


def finish_sparse(writer: gguf.GGUFWriter, path: Path, total: int) -> Path:
    """Write the header, and no weights: the file has room for `total` bytes of them, which take none on disk."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // writer.data_alignment) * writer.data_alignment
    os.truncate(path, start + total)
    return path


def add_vocabulary(writer: gguf.GGUFWriter, count: int) -> None:
    """Add `count` tokens: three special ones, the bytes, and made-up words."""
    special = ["<unk>", "<s>", "</s>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"t{number}" for number in range(count - len(tokens))]
    kinds = [2, 3, 3, *([6] * 256), *([1] * (count - 259))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * count)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _tensors(architecture: str, size: Dimensions) -> dict[str, Shape]:
    queries, keys = size.heads * size.head, size.kv_heads * size.head
    shapes: dict[str, Shape] = {"token_embd.weight": (size.vocabulary, size.width), "output_norm.weight": (size.width,)}
    if not size.tied:
        shapes["output.weight"] = (size.vocabulary, size.width)
    for layer in range(size.layers):
        block: dict[str, Shape] = {
            "attn_norm": (size.width,),
            "ffn_norm": (size.width,),
            "attn_q": (queries, size.width),
            "attn_k": (keys, size.width),
            "attn_v": (keys, size.width),
            "attn_output": (size.width, queries),
        }
        if architecture in ("gemma3", "qwen3moe"):
            block |= {"attn_q_norm": (size.head,), "attn_k_norm": (size.head,)}
        if architecture == "gemma3":
            block |= {"post_attention_norm": (size.width,), "post_ffw_norm": (size.width,)}
        if size.experts:
            block["ffn_gate_inp"] = (size.experts, size.width)
            block |= {f"ffn_{part}_exps": (size.experts, size.feed_forward, size.width) for part in ("gate", "up")}
            block["ffn_down_exps"] = (size.experts, size.width, size.feed_forward)
        else:
            block |= {f"ffn_{part}": (size.feed_forward, size.width) for part in ("gate", "up")}
            block["ffn_down"] = (size.width, size.feed_forward)
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def _add(writer: gguf.GGUFWriter, name: str, shape: Shape, kind: gguf.GGMLQuantizationType) -> int:
    """Add one entry of the tensor table and return the bytes it takes, padded."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    elements = int(np.prod(shape, dtype=np.int64))
    count = elements // block * block_bytes
    if kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor_info(name, shape, np.dtype(np.float32), count)
    else:
        byte_shape = (*shape[:-1], shape[-1] // block * block_bytes)
        writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), count, raw_dtype=kind)
    return -(-count // writer.data_alignment) * writer.data_alignment
