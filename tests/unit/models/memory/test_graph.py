"""ggml's allocator, by hand: what is placed where, and what of it is used again."""

from __future__ import annotations

import random

import pytest

from llama_gguf.models.memory.graph import Graph, Node

KIB = 256  # floats


def chain(graph: Graph, count: int, *, inplace: bool) -> Node:
    node = graph.result((KIB,), graph.input((1,)))
    for _ in range(count):
        node = graph.result((KIB,), node, inplace=inplace)
    return node


@pytest.mark.parametrize(("inplace", "expected"), [(True, 1024), (False, 2048)])
def test_a_chain_needs_one_place_or_two(*, inplace: bool, expected: int) -> None:
    graph = Graph()
    graph.compute(chain(graph, 20, inplace=inplace))
    assert graph.buffer_bytes() == expected + 64  # and the input


def test_what_is_used_later_keeps_its_place() -> None:
    graph = Graph()
    first = graph.result((KIB,))
    second = graph.result((KIB,), first, inplace=True)
    graph.compute(graph.result((KIB,), second, first, inplace=True))
    assert graph.buffer_bytes() == 2 * 1024


def test_other_dimensions_do_not_take_its_place() -> None:
    graph = Graph()
    first = graph.result((KIB,))
    graph.compute(graph.result((16, KIB // 16), first, inplace=True))
    assert graph.buffer_bytes() == 2 * 1024


def test_a_view_takes_nothing_and_keeps_what_it_shows() -> None:
    graph = Graph()
    first = graph.result((KIB,))
    half = graph.view(first, (KIB // 2,))
    other = graph.result((KIB,), graph.view(half, (KIB,)))
    graph.compute(other)
    assert graph.buffer_bytes() == 2 * 1024
    assert graph.buffer_bytes() == 2 * 1024, "asked twice, the same"
    graph.compute(graph.result((KIB // 2,), half, inplace=True))  # not in the place of a view
    assert graph.buffer_bytes() == 2 * 1024 + 512


def test_the_hole_that_fits_best_is_used() -> None:
    graph = Graph()
    large, small = graph.result((4 * KIB,)), graph.result((2 * KIB,))
    wall = graph.result((KIB,))
    for node in (large, wall, small):
        graph.compute(node)
    last = graph.result((KIB,))
    graph.compute(last)
    graph.compute(graph.stored(large))
    graph.compute(graph.stored(small))
    graph.compute(graph.result((2 * KIB,)))  # where `small` was, although the other hole comes first
    graph.compute(graph.result((4 * KIB,)))  # where `large` was
    graph.compute(graph.stored(wall, last))
    assert graph.buffer_bytes() == 8 * 1024


def test_operands_come_first_and_each_once() -> None:
    graph = Graph()
    shared = graph.result((KIB,))
    left, right = graph.result((KIB,), shared), graph.result((KIB,), shared)
    graph.compute(graph.result((KIB,), left, right))
    graph.compute(left)
    assert graph.buffer_bytes() == 3 * 1024


def test_a_deep_graph_does_not_recurse() -> None:
    graph = Graph()
    graph.compute(chain(graph, 50_000, inplace=True))
    assert graph.buffer_bytes() == 1024 + 64


@pytest.mark.parametrize("seed", range(30))
def test_never_less_than_what_is_alive_and_never_more_than_everything(seed: int) -> None:
    source = random.Random(seed)
    graph = Graph()
    nodes = [graph.result((source.randint(1, 4000),))]
    for _ in range(200):
        operands = tuple(source.sample(nodes[-8:], min(len(nodes), source.randint(1, 3))))
        if source.random() < 0.2:
            nodes.append(graph.view(operands[0], (source.randint(1, 100), -1)))
        else:
            shape = operands[0].shape if source.random() < 0.5 and operands[0].view_of is None else (KIB,)
            nodes.append(graph.result(shape, *operands, inplace=source.random() < 0.5))
    for node in nodes:
        graph.compute(node)
    largest = max(node.size for node in nodes)
    everything = sum(node.size for node in nodes)
    assert largest <= graph.buffer_bytes() <= everything
