"""One model's computation graph, from the shapes of its tensors: block after block. Pure.

Follows llama.cpp's models (src/models/*.cpp). What has no builder of its own is treated as a plain transformer with
the tensors that it has.
"""

from __future__ import annotations

from llama_gguf.models.gguf.architecture import Architecture
from llama_gguf.models.memory.attention_blocks import attention, latent_attention
from llama_gguf.models.memory.feed_forward_blocks import feed_forward
from llama_gguf.models.memory.graph import Node
from llama_gguf.models.memory.recurrent_blocks import delta_net, mamba, short_convolution
from llama_gguf.models.memory.step import Batch, Block, Step, Tensors

_SCALED = ("gemma", "granite", "minicpm")
"""Families whose embeddings are scaled first, which takes no memory of its own but an operation."""


def graph_bytes(model: Architecture, blocks: tuple[Block, ...], batch: Batch) -> int:
    """Return the bytes of ggml's buffer for one step of `batch`."""
    step = Step(model, batch)
    graph = step.graph
    current = graph.compute(graph.result((model.width, batch.tokens), step.token_ids))
    if model.name.startswith(_SCALED):
        current = step.same(current)
    per_layer = _project_per_layer(step, current) if model.per_layer_width else None
    for block in blocks:
        current = _block(step, current, block, per_layer)
    last = step.norm(graph.result((model.width, batch.outputs), current))
    graph.compute(graph.result((model.vocabulary, batch.outputs), last))
    return graph.buffer_bytes()


def _block(step: Step, residual: Node, block: Block, per_layer: Node | None) -> Node:
    tensors = Tensors(block.tensors)
    has_feed_forward = "ffn_up.weight" in tensors or "ffn_up_exps.weight" in tensors
    sandwich = "post_ffw_norm.weight" in tensors
    current = _mix(step, step.norm(residual), tensors, block)
    if current is None:
        return step.add(feed_forward(step, step.norm(residual), tensors), residual) if has_feed_forward else residual
    if sandwich and "post_attention_norm.weight" in tensors:
        current = step.norm(current)
    current = step.add(current, residual)
    if not has_feed_forward:
        return current
    residual = current
    current = feed_forward(step, step.norm(residual), tensors)
    if sandwich:
        current = step.norm(current)
    current = step.add(current, residual)
    if "inp_gate.weight" in tensors and per_layer is not None:
        return _add_per_layer(step, current, per_layer)
    return current


def _mix(step: Step, current: Node, tensors: Tensors, block: Block) -> Node | None:
    """Return what a block takes from other tokens, None if it is a feed-forward one only."""
    if "ssm_conv1d.weight" in tensors:
        if "ssm_in.weight" in tensors and len(tensors["ssm_a"]) > 1 and tensors["ssm_a"][1] > 1:
            return mamba(step, current, tensors, block.state)
        return delta_net(step, step.graph.compute(current), tensors)
    if "shortconv.conv.weight" in tensors:
        return short_convolution(step, current, tensors)
    if "attn_kv_a_mqa.weight" in tensors:
        return latent_attention(step, current, tensors, block)
    if "attn_output.weight" in tensors:
        return attention(step, current, tensors, block)
    return None


def _project_per_layer(step: Step, current: Node) -> Node:
    """Return the embeddings that gemma4 adds in each layer, of all layers together."""
    graph, model, tokens = step.graph, step.model, step.batch.tokens
    shape = (model.per_layer_width * len(model.layers), tokens)
    graph.input(shape)
    embedded = step.same(graph.compute(graph.result(shape, step.token_ids)))
    projected = step.norm(step.same(graph.result(shape, current)))
    both = step.same(graph.result(shape, projected, embedded, inplace=True))
    return graph.compute(graph.result(shape, graph.view(both, (-1,))))


def _add_per_layer(step: Step, current: Node, per_layer: Node) -> Node:
    graph, model, tokens = step.graph, step.model, step.batch.tokens
    gate = step.same(graph.result((model.per_layer_width, tokens), current))
    gate = graph.result(
        (model.per_layer_width, tokens), gate, graph.view(per_layer, (model.per_layer_width, -1)), inplace=True
    )
    return step.add(step.norm(graph.result((model.width, tokens), gate)), current)
