"""Architectures from headers that were never written: only what the test says is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_gguf.models.gguf.architecture import Architecture, read_architecture
from llama_gguf.models.gguf.header import Header, Value

PLAIN: dict[str, Any] = {
    "block_count": 8,
    "embedding_length": 1024,
    "attention__head_count": 8,
    "attention__head_count_kv": 2,
    "feed_forward_length": 4096,
    "context_length": 8192,
}
"""A small transformer; `__` stands for the dot in a key's name."""


def architecture_of(name: str, more: Mapping[str, Value] | None = None, /, **values: Value) -> Architecture:
    """Return what is read of a header with `values` of the architecture `name`, and the keys `more` as they are."""
    metadata: dict[str, Value] = {"general.architecture": name, **(more or {})}
    metadata |= {f"{name}.{key.replace('__', '.')}": value for key, value in values.items()}
    return read_architecture(Header(Path("x"), 0, 3, metadata, (), 0))
