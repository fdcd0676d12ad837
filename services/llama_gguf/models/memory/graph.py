"""A computation graph of tensor sizes, and the buffer that ggml would allocate for it. Pure.

ggml reserves one buffer for all intermediate results of the largest graph, and places each result where an earlier one
is no longer needed. How large that becomes depends on the order and on holes, so its allocator is followed exactly
(ggml-alloc.c: best fit, merging of free blocks, results in the place of an operand); only weights, which have memory of
their own, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable

_ALIGNMENT = 64
_ENDLESS = 1 << 62

Shape = tuple[int, ...]


class Node:
    """One tensor of the graph: an input, a result, or a view of another one, which takes no memory."""

    __slots__ = (
        "allocated",
        "children",
        "inplace",
        "offset",
        "operands",
        "pinned",
        "shape",
        "size",
        "view_of",
        "views",
    )

    def __init__(
        self, shape: Shape, operands: tuple[Node, ...], size: int, *, inplace: bool, view_of: Node | None = None
    ) -> None:
        self.shape, self.operands, self.size, self.inplace = shape, operands, size, inplace
        self.view_of = view_of
        self.pinned = False  # an input that is written before the graph runs
        self.allocated, self.offset = False, 0
        self.children = self.views = 0


class Graph:
    """Tensors in the order in which ggml computes them."""

    def __init__(self) -> None:
        self._order: list[Node] = []
        self._seen: set[int] = set()
        self._inputs: list[Node] = []

    def input(self, shape: Shape, element_bytes: int = 4) -> Node:
        """Add a tensor that is written before the graph runs."""
        node = Node(shape, (), _bytes(shape, element_bytes), inplace=False)
        node.pinned = True
        self._inputs.append(node)
        return node

    def result(self, shape: Shape, *operands: Node, inplace: bool = False, element_bytes: int = 4) -> Node:
        """Return the result of an operation; `inplace` ones take the place of an operand of the same shape."""
        return Node(shape, operands, _bytes(shape, element_bytes), inplace=inplace)

    def stored(self, *operands: Node) -> Node:
        """Return an operation that writes to memory of its own: a cache."""
        return Node((), operands, 0, inplace=False)

    def view(self, of: Node, shape: Shape) -> Node:
        """Return another look at a tensor: part of it, or with other dimensions."""
        return Node(shape, (of,), 0, inplace=False, view_of=of.view_of or of)

    def view_after(self, target: Node, *operands: Node) -> Node:
        """Return a tensor after an operation that wrote part of it."""
        return Node(target.shape, (*operands, target), 0, inplace=False, view_of=target.view_of or target)

    def compute(self, node: Node) -> Node:
        """Put a tensor, and all that it needs, at the end of the order (ggml_build_forward_expand)."""
        stack = [(node, iter(node.operands))]
        while stack:
            current, operands = stack[-1]
            if id(current) in self._seen or current.pinned:
                stack.pop()
                continue
            following = next((operand for operand in operands if id(operand) not in self._seen), None)
            if following is None:
                self._seen.add(id(current))
                self._order.append(current)
                stack.pop()
            else:
                stack.append((following, iter(following.operands)))
        return node

    def buffer_bytes(self) -> int:
        """Return the size of the buffer that ggml allocates for the whole graph."""
        buffer = _Buffer()
        for node in (*self._inputs, *self._order):
            node.children, node.views, node.allocated = 0, 0, False
        for node in self._inputs:
            if node.size:
                buffer.place(node)
        for node in self._order:
            if node.view_of is not None:
                node.view_of.views += 1
            for operand in node.operands:
                operand.children += 1
        for node in self._order:
            if node.view_of is None and not _takes_place(node) and node.size:
                buffer.place(node)
            for operand in node.operands:
                operand.children -= 1
                if operand.children == 0 and operand.views == 0:
                    _release(operand, buffer)
        return buffer.most


def _bytes(shape: Shape, element_bytes: int) -> int:
    size = element_bytes
    for length in shape:
        size *= length
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _takes_place(node: Node) -> bool:
    """Put a result where one of its operands is, if that one is no view and not needed any more."""
    if not node.inplace:
        return False
    for operand in node.operands:
        if operand.allocated and operand.shape == node.shape and operand.children == 1 and operand.views == 0:
            node.offset, node.allocated = operand.offset, True
            operand.allocated = False
            return True
    return False


def _release(node: Node, buffer: _Buffer) -> None:
    owner = node.view_of
    if owner is not None:
        owner.views -= 1
        if owner.views or owner.children:
            return
        node = owner
    if node.allocated:
        buffer.free(node)


class _Buffer:
    """ggml's allocator: the best fitting hole, else at the end."""

    def __init__(self) -> None:
        self._free: list[list[int]] = [[0, _ENDLESS]]
        self.most = 0

    def place(self, node: Node) -> None:
        """Find a place for a tensor."""
        holes = [hole for hole in self._free[:-1] if hole[1] >= node.size]
        best = min(reversed(holes), key=lambda hole: hole[1], default=self._free[-1])
        node.offset, node.allocated = best[0], True
        best[0] += node.size
        best[1] -= node.size
        if best[1] == 0:
            self._free.remove(best)
        self.most = max(self.most, node.offset + node.size)

    def free(self, node: Node) -> None:
        """Give the place of a tensor back."""
        node.allocated = False
        self._free = _merged([*self._free, [node.offset, node.size]])


def _merged(blocks: Iterable[list[int]]) -> list[list[int]]:
    found: list[list[int]] = []
    for offset, size in sorted(blocks):
        if found and found[-1][0] + found[-1][1] == offset:
            found[-1][1] += size
        else:
            found.append([offset, size])
    return found
