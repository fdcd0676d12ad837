"""Feed-forward blocks: dense ones, and experts of which each token uses some. Pure."""

from __future__ import annotations

from llama_gguf.models.memory.graph import Node
from llama_gguf.models.memory.step import Step, Tensors


def feed_forward(step: Step, current: Node, tensors: Tensors) -> Node:
    if "ffn_gate_inp.weight" in tensors:
        mixed = _experts(step, current, tensors)
        if "ffn_up_shexp.weight" not in tensors:
            return mixed
        shared = _dense(step, current, tensors, "_shexp")
        if "ffn_gate_inp_shexp.weight" in tensors:
            gate = step.same(step.graph.result((1, step.batch.tokens), current))
            shared = step.graph.result(shared.shape, shared, gate, inplace=True)
        return step.add(mixed, shared)
    return _dense(step, current, tensors, "")


def _dense(step: Step, current: Node, tensors: Tensors, kind: str) -> Node:
    graph = step.graph
    up = step.times(tensors, f"ffn_up{kind}", current)
    inner = tensors[f"ffn_down{kind}.weight"][0]
    if f"ffn_gate{kind}.weight" in tensors:
        gate = step.times(tensors, f"ffn_gate{kind}", current)
        active = graph.result((inner, step.batch.tokens), gate, up)
    elif up.shape[0] == 2 * inner:
        active = graph.result((inner, step.batch.tokens), up)
    else:
        active = step.same(step.same(up))
    return step.times(tensors, f"ffn_down{kind}", active)


def _experts(step: Step, current: Node, tensors: Tensors) -> Node:
    graph, model, tokens = step.graph, step.model, step.batch.tokens
    used, count = max(1, model.experts_used), tensors["ffn_gate_inp.weight"][1]
    scores = step.times(tensors, "ffn_gate_inp", current)
    before = model.name == "llama4"
    chances = scores if model.name == "gpt-oss" else step.same(scores)
    selection = step.same(chances) if "exp_probs_b.bias" in tensors else chances
    if before:
        selection = scores
    if model.expert_groups > 1:
        selection = _grouped(step, selection, count)
    order = graph.result((count, tokens), selection)
    chosen = graph.view(order, (used, tokens))
    weights = graph.result((1, used, tokens), graph.view(chances, (1, count, tokens)), chosen)
    if not before:
        flat = graph.view(weights, (used, tokens))
        total = step.same(graph.result((1, tokens), flat))
        weights = graph.view(graph.result((used, tokens), flat, total, inplace=True), (1, used, tokens))
    graph.compute(weights)
    current = graph.view(current, (current.shape[0], 1, tokens))
    width, inner = current.shape[0], tensors["ffn_down_exps.weight"][0]
    if before:
        repeated = graph.result((width, used, tokens), current)
        current = graph.result(repeated.shape, repeated, weights, inplace=True)
    if "ffn_gate_up_exps.weight" in tensors:
        both = graph.result((2 * inner, used, tokens), current, chosen)
        active = graph.result((inner, used, tokens), graph.view(both, (inner, -1)), graph.view(both, (inner, -2)))
    else:
        up = _expert_times(step, tensors, "ffn_up_exps", current, chosen, width=inner)
        if "ffn_gate_exps.weight" in tensors:
            gate = _expert_times(step, tensors, "ffn_gate_exps", current, chosen, width=inner)
            active = graph.result((inner, used, tokens), gate, up)
        else:
            active = step.same(step.same(up))
    mixed = _expert_times(step, tensors, "ffn_down_exps", active, chosen, width=width)
    if not before:
        mixed = graph.result(mixed.shape, mixed, weights, inplace=True)
    graph.compute(mixed)
    parts = [graph.compute(graph.view(mixed, (width, tokens, -1 - index))) for index in range(used)]
    if used == 1:
        return graph.result((width, tokens), parts[0])
    total = graph.compute(graph.result((width, tokens), parts[0], parts[1], inplace=True))
    for part in parts[2:]:
        total = graph.compute(graph.result((width, tokens), total, part, inplace=True))
    return total


def _expert_times(step: Step, tensors: Tensors, name: str, node: Node, chosen: Node, *, width: int) -> Node:
    found = step.graph.result((width, max(1, step.model.experts_used), step.batch.tokens), node, chosen)
    if f"{name}.bias" in tensors:
        return step.graph.result(found.shape, found, chosen, inplace=True)
    return found


def _grouped(step: Step, scores: Node, count: int) -> Node:
    """Return the scores with those of the lesser groups of experts masked out."""
    graph, model, tokens = step.graph, step.model, step.batch.tokens
    groups = model.expert_groups
    split = graph.view(scores, (count // groups, groups, tokens))
    best = graph.view(graph.result((count // groups, groups, tokens), split), (2, groups, tokens))
    sums = graph.result((2, groups, tokens), graph.view(split, (1, -1)), best)
    sums = graph.result((groups, tokens), graph.view(sums, (2, groups, -1)))
    chosen = graph.view(graph.result((groups, tokens), sums), (model.groups_used, tokens))
    kept = graph.result((count // groups, model.groups_used, tokens), split, chosen)
    filled = step.same(split)
    return graph.view(graph.view_after(filled, kept, chosen), (count, tokens))
