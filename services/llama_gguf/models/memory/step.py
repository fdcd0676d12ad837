"""One step of a model, and what all of its blocks are made of. Pure.

Follows llama.cpp's graph builders (llama-graph.cpp): what is computed, in which order, and what of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llama_gguf.models.gguf.architecture import Architecture
from llama_gguf.models.memory.graph import Graph, Node, Shape


class Tensors(dict[str, Shape]):
    """The shapes of one block's tensors by their names without `blk.N.`: values in a row first, two lengths or more.

    A tensor that the file does not have is empty: such a model is refused by llama-server.
    """

    def __init__(self, tensors: Iterable[tuple[str, Shape]]) -> None:
        super().__init__((name, (*shape, 1, 1)[: max(2, len(shape))]) for name, shape in tensors)

    def __missing__(self, name: str) -> Shape:
        return (0, 0)


@dataclass(frozen=True, slots=True)
class Block:
    """One layer: its tensors, and what of its hyperparameters no shape tells."""

    tensors: tuple[tuple[str, Shape], ...]
    heads: int
    key_width: int
    value_width: int
    cells: int  # of its cache, per slot; 0 without one
    windowed: bool
    padded_value_width: int  # of the widest layer: without flash attention all value caches are as wide
    state: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What is computed at once."""

    tokens: int
    slots: int
    outputs: int
    flash: bool
    wide: tuple[bool, bool] = (False, False)  # keys, values are cached with 32 bits
    rotated: tuple[bool, bool] = (False, False)  # quantised caches: keys, values are rotated before they are stored


class Step:
    """The graph of one step, and the operations that all kinds of blocks share."""

    def __init__(self, model: Architecture, batch: Batch) -> None:
        self.model, self.batch, self.graph = model, batch, Graph()
        self.token_ids = self.graph.input((batch.tokens,))
        self.graph.input((model.width, batch.tokens))  # embeddings, for what is not text
        self.positions = self.graph.input((batch.tokens,))
        self._masks: dict[bool, tuple[Node, Node, Node]] = {}

    def norm(self, node: Node) -> Node:
        """Return a tensor normed, and scaled by a weight."""
        normed = self.graph.result(node.shape, node, inplace=True)
        return self.graph.result(node.shape, normed, inplace=True)

    def add(self, new: Node, residual: Node) -> Node:
        """Add a block's result to its input, in the place of the result; LFM2 has them the other way round."""
        operands = (residual, new) if self.model.name.startswith("lfm2") else (new, residual)
        return self.graph.result(new.shape, *operands, inplace=True)

    def same(self, node: Node) -> Node:
        """Return the result of an operation on each value: an activation, a bias, a scale."""
        return self.graph.result(node.shape, node, inplace=True)

    def times(self, tensors: Tensors, name: str, node: Node) -> Node:
        """Multiply with a weight, and add its bias if it has one."""
        found = self.graph.result((tensors[f"{name}.weight"][1], *node.shape[1:]), node)
        return self.same(found) if f"{name}.bias" in tensors else found

    def mask(self, block: Block) -> tuple[Node, Node, Node]:
        """Return the mask of a cache and the indices of the cells that keys and values are stored in."""
        if block.windowed not in self._masks:
            batch, graph = self.batch, self.graph
            per_slot = -(-batch.tokens // batch.slots)
            values = batch.tokens if batch.flash else batch.tokens * block.padded_value_width
            self._masks[block.windowed] = (
                graph.input((block.cells, per_slot, batch.slots), 2 if batch.flash else 4),
                graph.input((batch.tokens,), 8),
                graph.input((values,), 8),
            )
        return self._masks[block.windowed]

    def state(self, size: int) -> Node:
        """Read the states of all slots, and keep those of the others."""
        graph, slots = self.graph, self.batch.slots
        return graph.compute(graph.result((size, slots), self.positions))
