"""Blocks with a state of fixed size: state space models, gated delta nets, short convolutions. Pure."""

from __future__ import annotations

from llama_gguf.models.memory.graph import Node
from llama_gguf.models.memory.step import Step, Tensors


def mamba(step: Step, current: Node, tensors: Tensors, state: int) -> Node:
    graph, tokens, slots = step.graph, step.batch.tokens, step.batch.slots
    kernel, mixed = tensors["ssm_conv1d.weight"][:2]
    inner = tensors["ssm_out.weight"][0]
    heads = tensors["ssm_a"][1]
    before = graph.view(step.state(max(kernel - 1, 0) * mixed), (max(kernel - 1, 0), mixed, slots))
    projected = step.times(tensors, "ssm_in", current)
    gate = graph.view(projected, (inner, tokens, -1))
    convolved = graph.view(projected, (mixed, tokens, -1))
    steps = graph.view(projected, (heads, tokens, -1))
    padded = graph.result(
        (max(kernel - 1, 0) * slots + tokens, mixed), before, graph.view(convolved, (tokens, mixed, -1))
    )
    graph.compute(graph.stored(graph.view(padded, (-1,))))
    values = step.same(step.same(graph.result((mixed, tokens), padded)))
    entry = graph.view(values, (inner, tokens, -1))
    keys, queries = graph.view(values, (-1,)), graph.view(values, (-2,))
    delays = step.same(graph.result((heads, tokens), steps))
    scanned = graph.compute(graph.result((inner * tokens + state * slots,), entry, delays, keys, queries))
    graph.compute(graph.stored(graph.view(scanned, (-1,))))
    found = graph.view(scanned, (inner, tokens, -1))
    skipped = graph.result((inner, tokens), entry)
    found = graph.result((inner, tokens), found, skipped, inplace=True)
    gated = graph.result((inner, tokens), graph.result((inner, tokens), gate), found)
    if "ssm_norm.weight" in tensors:
        gated = step.norm(graph.view(gated, (inner, 1, tokens)))
    return step.times(tensors, "ssm_out", graph.view(gated, (inner, tokens)))


def delta_net(step: Step, current: Node, tensors: Tensors) -> Node:
    """A gated delta net: a convolution over queries, keys and values, then one fused operation."""
    graph, tokens, slots = step.graph, step.batch.tokens, step.batch.slots
    kernel, mixed = tensors["ssm_conv1d.weight"][:2]
    inner = tensors["ssm_out.weight"][0]
    heads = max(1, tensors["ssm_a"][0])
    keys = max(0, mixed - inner) // 2
    head = inner // heads
    if "attn_qkv.weight" in tensors:
        projected = step.times(tensors, "attn_qkv", current)
        gate = step.times(tensors, "attn_gate", current)
    else:
        both = step.times(tensors, "ssm_in", current)
        projected = graph.result((mixed, tokens), graph.view(both, (-1,)))
        gate = graph.result((inner, tokens), graph.view(both, (-2,)))
    small = graph.result((2 * heads, tokens), current)
    beta = step.same(graph.result((heads, tokens), graph.view(small, (heads, -1))))
    decay = step.same(step.same(step.same(graph.result((heads, tokens), graph.view(small, (heads, -2))))))
    before = graph.view(step.state(max(kernel - 1, 0) * mixed), (max(kernel - 1, 0), mixed, slots))
    padded = graph.result(
        (max(kernel - 1, 0) * slots + tokens, mixed), before, graph.view(projected, (tokens, mixed, -1))
    )
    graph.compute(graph.stored(graph.view(padded, (-1,))))
    state = step.state(head * inner)
    values = step.same(graph.result((mixed, tokens), padded))
    query = graph.result((keys, tokens), graph.view(values, (keys, -1)))
    key = graph.result((keys, tokens), graph.view(values, (keys, -2)))
    value = graph.view(values, (inner, -3))
    if keys != inner:
        query = graph.result((inner, tokens), graph.view(query, (-1,)))
        key = graph.result((inner, tokens), graph.view(key, (-1,)))
    found = graph.result((inner, tokens + head * slots), query, key, value, decay, beta, graph.view(state, (-1,)))
    output = graph.view(found, (inner, tokens, -1))
    graph.compute(graph.stored(graph.view(found, (-2,))))
    normed = step.same(graph.result((inner, tokens), output))
    active = step.same(graph.view(gate, (inner, tokens)))
    gated = graph.result((inner, tokens), normed, active, inplace=True)
    return step.times(tensors, "ssm_out", gated)


def short_convolution(step: Step, current: Node, tensors: Tensors) -> Node:
    graph, tokens, slots = step.graph, step.batch.tokens, step.batch.slots
    kernel, width = tensors["shortconv.conv.weight"][:2]
    three = step.times(tensors, "shortconv.in_proj", current)
    mixed = graph.result((width, tokens), graph.view(three, (width, -1)), graph.view(three, (width, -2)), inplace=True)
    before = graph.view(step.state(max(kernel - 1, 0) * width), (max(kernel - 1, 0), width, slots))
    padded = graph.result((max(kernel - 1, 0) * slots + tokens, width), before, graph.view(mixed, (tokens, width)))
    graph.compute(graph.stored(graph.view(padded, (-1,))))
    convolved = graph.result((width, tokens), padded)
    gated = graph.result((width, tokens), graph.view(three, (width, -3)), convolved, inplace=True)
    return step.times(tensors, "shortconv.out_proj", gated)
