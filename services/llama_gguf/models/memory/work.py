"""The work buffers of one model: its tensors and settings -> the graph that ggml would reserve them for. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llama_gguf.models.gguf.architecture import Architecture
from llama_gguf.models.gguf.header import Tensor
from llama_gguf.models.memory.blocks import graph_bytes
from llama_gguf.models.memory.step import Batch, Block

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
NOT_FOLLOWED = frozenset(
    """
    arwkv7 bailingmoe3 chameleon dflash eagle3 gemma3n gemma4-assistant hrm_text kimi-k3 kimi-linear minimax-01 plamo2
    pockettts qwen3tts rwkv6 rwkv6qwen2 rwkv7 t5 t5encoder wavtokenizer-dec
    """.split()  # noqa: SIM905 - as in known_architectures
)
"""Architectures that compute what no builder here has; what they keep between steps is counted all the same."""

_ALIKE = 2  # of blocks that are the same, the graph has this many: those after them only use the same places again


def work_bytes(tensors: Sequence[Tensor], architecture: Architecture, cells: Sequence[int], batch: Batch) -> int:
    """Return the bytes of ggml's work buffer; `cells` are those of each layer's cache for one slot."""
    return graph_bytes(architecture, _blocks(tensors, architecture, cells), batch)


def _blocks(tensors: Sequence[Tensor], architecture: Architecture, cells: Sequence[int]) -> tuple[Block, ...]:
    by_layer: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for tensor in tensors:
        if match := _BLOCK.match(tensor.name):
            by_layer.setdefault(int(match[1]), []).append((match[2], tensor.shape))
    widest = max((layer.value_width for layer in architecture.layers), default=0)
    found: list[Block] = []
    for index, layer in enumerate(architecture.layers[: architecture.trunk]):
        heads = architecture.layer_heads[index % len(architecture.layer_heads)] if architecture.layer_heads else 0
        block = Block(
            tensors=tuple(sorted(by_layer.get(index, []))),
            heads=heads,
            key_width=layer.key_width,
            value_width=layer.value_width,
            cells=cells[index],
            windowed=layer.window > 0,
            padded_value_width=widest,
            state=layer.state_floats,
        )
        if found.count(block) < _ALIKE:
            found.append(block)
    return tuple(found)
