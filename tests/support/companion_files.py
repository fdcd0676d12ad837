"""Writes files that can be mistaken for a model: an adapter, a projector, a part; as small as can still be read."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write_adapter(path: Path, architecture: str) -> Path:
    """Write a LoRA adapter of tiny_model's width for a model of this architecture to `path` and return it."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((1, 64), dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.zeros((64, 1), dtype=np.float32))
    return _finish(writer, path)


def write_projector(path: Path) -> Path:
    """Write the beginning of a multimodal projector to `path` and return it."""
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_tensor("v.patch_embd.weight", np.zeros((4, 4), dtype=np.float32))
    return _finish(writer, path)


def write_part(path: Path, number: int, count: int) -> Path:
    """Write one of `count` parts of a split model, counted from 0, to `path` and return it."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_uint16("split.no", number)
    writer.add_uint16("split.count", count)
    writer.add_tensor(f"blk.{number}.x.weight", np.ones(8, dtype=np.float32))
    return _finish(writer, path)


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
