"""Blocks that attend: queries, keys and values, and what DeepSeek has in their place. Pure."""

from __future__ import annotations

from llama_gguf.models.memory.graph import Node
from llama_gguf.models.memory.step import Block, Step, Tensors

_ROTATED = 64  # heads of a multiple of this many values are rotated for caches of a quantised type


def attention(step: Step, current: Node, tensors: Tensors, block: Block) -> Node:
    graph, tokens = step.graph, step.batch.tokens
    queries = tensors["attn_output.weight"][0]
    heads = block.heads
    head = queries // heads if heads else queries
    gate: Node | None = None
    if "attn_qkv.weight" in tensors:
        fused = step.times(tensors, "attn_qkv", current)
        query = graph.view(fused, (head, heads, tokens, -1))
        key: Node | None = graph.view(fused, (block.key_width, tokens, -1))
        value: Node | None = graph.view(fused, (block.value_width, tokens, -2))
    else:
        query = step.times(tensors, "attn_q", current)
        wide = query.shape[0] == 2 * queries  # queries and their gates
        has_cache = "attn_k.weight" in tensors and block.key_width > 0
        key = step.times(tensors, "attn_k", current) if has_cache else None
        value = step.times(tensors, "attn_v", current) if has_cache and "attn_v.weight" in tensors else key
        if wide:
            gate = graph.view(query, (head, heads, tokens, -2))
            query = graph.view(query, (head, heads, tokens, -1))
        else:
            query = graph.view(query, (head, heads, tokens))
        if key is not None and value is not None:
            same = key is value
            key = graph.view(key, (head, key.shape[0] // head if head else 0, tokens))
            value = graph.view(value, (head, value.shape[0] // head if head else 0, tokens)) if not same else key
    plain = (head, heads, tokens)
    if "attn_q_norm.weight" in tensors:
        query = step.norm(query) if query.shape == plain else step.same(graph.result(plain, query))
        key = step.norm(key) if key is not None else None
    if step.model.name == "gemma4" and value is not None:
        value = step.same(value)
    if not step.model.name.startswith("nemotron_h"):  # others are rotated by position
        query = step.same(query) if query.shape == plain else graph.result(plain, query)
    if key is not None and not step.model.name.startswith("nemotron_h"):
        key = step.same(key) if len(key.shape) == 3 and key.shape[-1] == tokens else _copy(step, key, block.key_width)
    if step.model.name == "llama4":
        query, key = step.same(query), step.same(key) if key is not None else None
    output = _attend(step, query, key, value, block, width=queries)
    if gate is not None:
        output = graph.result(output.shape, output, step.same(graph.result((queries, tokens), gate)), inplace=True)
    return step.times(tensors, "attn_output", output)


def _copy(step: Step, node: Node, width: int) -> Node:
    return step.graph.result((width, step.batch.tokens), node)


def _attend(step: Step, query: Node, key: Node | None, value: Node | None, block: Block, *, width: int) -> Node:
    """Store keys and values, and attend: from rotated queries to what each head found."""
    graph, batch = step.graph, step.batch
    mask, key_cells, value_cells = step.mask(block)
    rotated_keys = batch.rotated[0] and query.shape[0] % _ROTATED == 0
    rotated_values = batch.rotated[1] and block.heads > 0 and width // block.heads % _ROTATED == 0
    if rotated_keys:
        query, key = _rotated(step, query), _rotated(step, key) if key is not None else None
    if rotated_values and value is not None:
        value = _rotated(step, value)
    for node in (query, value, key):
        if node is not None:
            graph.compute(node)
    if key is not None:
        graph.compute(graph.stored(graph.view(key, (-1,)), key_cells))
    if value is not None:
        if not batch.flash and 0 < block.value_width < block.padded_value_width:
            value = graph.result((block.padded_value_width, batch.tokens), value)
        graph.compute(graph.stored(graph.view(value, (-1,)), value_cells))
    seen = graph.view(query, (-3,))
    if batch.flash:
        halves = [  # flash attention takes no caches of 32 bits
            graph.result((block.cells, size, batch.slots), element_bytes=2)
            for size, wide in zip((block.key_width, block.value_width), batch.wide, strict=True)
            if wide
        ]
        found = graph.result((width, batch.tokens), seen, *halves, mask)
        found = graph.compute(graph.view(found, (width, batch.tokens)))
    else:
        scores = graph.result((block.cells, batch.tokens, block.heads), seen)
        weights = graph.result(scores.shape, scores, mask, inplace=True)
        mixed = graph.result((width, batch.tokens), weights)
        found = graph.compute(graph.result((width, batch.tokens), graph.view(mixed, (-4,))))
    if rotated_values:
        found = _rotated(step, found)
    return found


def _rotated(step: Step, node: Node) -> Node:
    """Return a tensor multiplied by a Hadamard matrix, for caches of a quantised type."""
    graph = step.graph
    flat = graph.view(node, (-5,))
    return graph.view(graph.result(node.shape, flat), node.shape)


def latent_attention(step: Step, current: Node, tensors: Tensors, block: Block) -> Node:
    """DeepSeek's: queries and keys in a latent space, values out of the keys."""
    graph, tokens, heads = step.graph, step.batch.tokens, block.heads
    if "attn_q_a.weight" in tensors:
        current_query = step.times(tensors, "attn_q_b", step.norm(step.times(tensors, "attn_q_a", current)))
    else:
        current_query = step.times(tensors, "attn_q", current)
    both = step.times(tensors, "attn_kv_a_mqa", current)
    latent = tensors["attn_kv_a_norm.weight"][0]
    rope = max(0, tensors["attn_kv_a_mqa.weight"][1] - latent)
    compressed = graph.view(both, (latent, tokens, -1))
    key_positions = graph.result((rope, tokens), graph.view(both, (rope, tokens, -1)))
    compressed = step.same(graph.result((latent, tokens), compressed))
    if "attn_k_b.weight" not in tensors:
        return _decompressed(step, current_query, (compressed, key_positions), tensors, block)
    plain = graph.view(current_query, (-1, heads, tokens))
    query_positions = graph.result((rope, heads, tokens), graph.view(current_query, (-2, heads, tokens)))
    absorbed = graph.result((latent, tokens, heads), graph.view(plain, (-3, heads, tokens)))
    query = graph.result((latent + rope, heads, tokens), graph.view(absorbed, (-1,)), query_positions)
    compressed = graph.view(compressed, (latent, 1, tokens))
    key = graph.result((latent + rope, tokens), compressed, key_positions)
    mask, key_cells, _ = step.mask(block)
    for node in (query, compressed, key):
        graph.compute(node)
    graph.compute(graph.stored(graph.view(key, (-1,)), key_cells))
    value_head = tensors["attn_v_b.weight"][1]
    width = heads * value_head
    seen = graph.view(query, (-3,))
    if step.batch.flash:
        found = graph.result((latent, heads, tokens), seen, mask)
    else:
        scores = graph.result((block.cells, tokens, heads), seen)
        found = graph.result((latent, tokens, heads), graph.result(scores.shape, scores, mask, inplace=True))
    decompressed = graph.result((value_head, tokens, heads), graph.view(found, (-1,)))
    output = graph.compute(graph.result((width, tokens), graph.view(decompressed, (-1,))))
    return step.times(tensors, "attn_output", output)


def _decompressed(step: Step, query: Node, latent: tuple[Node, Node], tensors: Tensors, block: Block) -> Node:
    """Return what attends to keys and values out of the latent space: of models without the absorbed weights."""
    compressed, key_positions = latent
    graph, tokens = step.graph, step.batch.tokens
    both = step.times(tensors, "attn_kv_b", compressed)
    value = graph.result((block.value_width, tokens), graph.view(both, (-1,)))
    query = step.same(query)
    repeated = graph.result((key_positions.shape[0], block.heads, tokens), key_positions)
    key = graph.result((block.key_width, tokens), graph.view(both, (-2,)), repeated)
    output = _attend(step, query, key, value, block, width=tensors["attn_output.weight"][0])
    return step.times(tensors, "attn_output", output)
