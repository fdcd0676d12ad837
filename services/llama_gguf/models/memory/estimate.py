"""How much memory a model needs, and for what. Pure: headers and settings in, bytes out.

Weights, caches and compute buffers are counted as llama.cpp allocates them
(tests/unit/models/memory/test_accuracy.py holds them to what llama-server reports).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from llama_gguf.cpu import Cpu
from llama_gguf.models.gguf.architecture import Architecture, Layer
from llama_gguf.models.gguf.header import Tensor
from llama_gguf.models.gguf.tensor_types import CACHE_TYPES
from llama_gguf.models.memory.repack import NO_CPU, repacked
from llama_gguf.models.memory.step import Batch
from llama_gguf.models.memory.work import work_bytes
from llama_gguf.settings.checks.draft_tokens import verified_at_once
from llama_gguf.settings.sections.engine_parts.auto import given

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

MIB = 1 << 20

CELLS = 256  # llama.cpp rounds contexts and windows up to a multiple of this
_CHECKPOINT_TOKENS, _MAX_CHECKPOINTS = 8192, 32  # of windowed and recurrent state, in main memory
DEVICE_CONTEXT_BYTES = 512 * MIB  # CUDA's context and its libraries' workspaces
_NGRAM_POOL_BYTES = 16 * MIB
_ALL_LAYERS = 1 << 30
_PROCESS_BYTES = 48 * MIB
_BYTES_PER_TOKEN_OF_VOCABULARY = 350
_FLOATS = ("f32", "f16", "bf16")
_BLOCK = re.compile(r"blk\.(\d+)\.")
_EXPERTS = re.compile(r"\.ffn_\w+_(?:ch)?exps")


@dataclass(frozen=True, slots=True)
class Weights:
    """One model's tensors (all parts of a split one) and its architecture."""

    tensors: tuple[Tensor, ...]
    architecture: Architecture


@dataclass(frozen=True, slots=True)
class Item:
    """One use of memory, in bytes; `mapped` is the part of `host` that is file-backed, so the kernel can reclaim it."""

    name: str
    device: int
    host: int
    mapped: int = 0


@dataclass(frozen=True)
class Inputs:
    """Everything that the memory use depends on."""

    model: Weights
    engine: Engine
    mmproj: tuple[Tensor, ...]
    draft: Weights | None
    adapters: tuple[Tensor, ...]
    host_experts: int  # layers whose experts stay in main memory
    cpu: Cpu = NO_CPU  # whose instructions weights are repacked for
    mapped: bool = True  # memory-mapped; else read or locked into memory
    predicts_more: bool = False  # with the model's own layers for it, which are loaded only then

    @cached_property
    def compute(self) -> int:
        """Bytes of the compute buffers, which do not depend on where the layers are."""
        return compute_bytes(self.model, self.engine, drafts=self.draft is not None)


def host_experts(engine: Engine) -> int:
    """Return how many layers' experts engine.cpu_moe_layers, --cpu-moe or --n-cpu-moe keep in main memory."""
    if engine.cpu_moe_layers:
        return _ALL_LAYERS if engine.cpu_moe_layers == "all" else engine.cpu_moe_layers
    extra_args = engine.extra_args
    for index, argument in enumerate(extra_args):
        if argument in ("--cpu-moe", "-cmoe"):
            return _ALL_LAYERS
        if argument in ("--n-cpu-moe", "-ncmoe") and index + 1 < len(extra_args) and extra_args[index + 1].isdigit():
            return int(extra_args[index + 1])
    return 0


def maps_weights(engine: Engine) -> bool:
    """Return whether weights are memory-mapped and can be reclaimed: unless llama-server reads or locks them."""
    mode: str = engine.load_mode
    for argument, value in pairwise((*engine.extra_args, "")):
        if argument in ("--load-mode", "-lm"):
            mode = value
    return mode in ("auto", "mmap")


def predicts_more(engine: Engine) -> bool:
    """Return whether the model's own layers for multi-token prediction are to be used, and thus loaded."""
    given = engine.speculative.types or ()
    return "draft-mtp" in given or any(
        argument == "--spec-type" and "draft-mtp" in value.split(",")
        for argument, value in pairwise((*engine.extra_args, ""))
    )


def cells_per_slot(engine: Engine, architecture: Architecture) -> int:
    """Return each slot's actual context in tokens, as llama.cpp rounds it.

    Without a number, --fit gives each slot the trained context, and does not reduce it, because --ctx-size 0 asks for
    all of it (common/arg.cpp); without --fit the slots share one.
    """
    shared = 1 if engine.fit else given(engine.slots)
    wanted = given(engine.context_per_slot) or max(1, architecture.trained_context // shared)
    return -(-wanted // CELLS) * CELLS


def count_items(inputs: Inputs, layers: int) -> tuple[Item, ...]:
    """Return every use of memory with `layers` layers (including the output layer) on the device."""
    engine, architecture = inputs.engine, inputs.model.architecture
    items = [
        *_weights(inputs, inputs.model, layers, inputs.host_experts),
        *_caches(architecture, engine, layers, _cache_types(engine)),
        _placed("compute buffers", inputs.compute, on_device=layers > 0),
    ]
    if inputs.adapters:
        items.append(_placed("LoRA adapters", _sum(inputs.adapters), on_device=layers > 0))
    if inputs.mmproj:
        # Its compute buffers grow with the image: about as much as its weights at the usual sizes.
        items.append(_placed("multimodal projector", 2 * _sum(inputs.mmproj), on_device=layers > 0))
    if inputs.draft:
        items.append(_draft(inputs, inputs.draft, layers))
    if "ngram-mod" in engine.speculative.types:
        items.append(Item("n-gram drafts", 0, _NGRAM_POOL_BYTES))
    if inputs.predicts_more and architecture.loads_more:
        # A context of its own, with the cache of its layers; its graph is one block with an output layer.
        cells = cells_per_slot(engine, architecture)
        types = _cache_types(engine)
        cached = sum(_layer_cache(layer, cells, engine, types) for layer in architecture.prediction)
        size = given(engine.slots) * cached + inputs.compute
        items.append(_placed("multi-token prediction", size, on_device=layers > 0))
    if engine.prompt_cache_mib:
        items.append(Item("prompt cache (up to)", 0, engine.prompt_cache_mib * MIB))
    if checkpoints := _checkpoints(architecture, engine):
        items.append(Item("context checkpoints (up to)", 0, checkpoints))
    vocabulary = architecture.vocabulary * _BYTES_PER_TOKEN_OF_VOCABULARY
    items.append(Item("program", DEVICE_CONTEXT_BYTES if layers else 0, _PROCESS_BYTES + vocabulary))
    return tuple(items)


def _placed(name: str, size: int, *, on_device: bool) -> Item:
    return Item(name, size, 0) if on_device else Item(name, 0, size)


def _sum(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.byte_size for tensor in tensors)


def _weights(inputs: Inputs, model: Weights, layers_on_device: int, experts_on_host: int) -> list[Item]:
    """The input layer stays in main memory; from the output layer downwards the rest goes to the device.

    What stays is used in the mapped file, or repacked for the CPU's instructions.
    """
    count = len(model.architecture.layers)
    first_on_device = count + 1 - layers_on_device
    loaded = count if inputs.predicts_more and model.architecture.loads_more else model.architecture.trunk
    device = host = copied = 0
    names = {tensor.name for tensor in model.tensors}
    for tensor in model.tensors:
        block = _BLOCK.match(tensor.name)
        if block:
            index = int(block[1])
            if index >= loaded:
                continue
            stays = index < first_on_device or (index < experts_on_host and _EXPERTS.search(tensor.name))
        else:
            stays = layers_on_device == 0 or "token_embd" in tensor.name
        if not stays:
            device += tensor.byte_size
        elif copy := repacked(tensor, inputs.cpu):
            copied += copy.size
        else:
            host += tensor.byte_size
        if tensor.name == "token_embd.weight" and "output.weight" not in names:
            # The output layer uses the same weights, from its own copy if it is in another memory.
            if layers_on_device:
                device += tensor.byte_size
            elif copy := repacked(tensor, inputs.cpu, as_output=True):
                copied += copy.size
    items = [Item("weights", device, host, host if inputs.mapped else 0)]
    return [*items, Item("repacked weights", 0, copied)] if copied else items


def _caches(architecture: Architecture, engine: Engine, layers_on_device: int, types: tuple[str, str]) -> list[Item]:
    cells = cells_per_slot(engine, architecture)
    first_on_device = len(architecture.layers) + 1 - layers_on_device
    if engine.flash_attention == "off":
        architecture = _with_values_alike(architecture)
    sizes = {"KV cache": [0, 0], "recurrent state": [0, 0]}
    for index, layer in enumerate(architecture.layers):
        location = 0 if index >= first_on_device else 1
        sizes["KV cache"][location] += given(engine.slots) * _layer_cache(layer, cells, engine, types)
        sizes["recurrent state"][location] += given(engine.slots) * layer.state_floats * 4
    return [Item(name, *by_location) for name, by_location in sizes.items() if any(by_location)]


def _with_values_alike(architecture: Architecture) -> Architecture:
    """Return the layers as they are cached without flash attention: values as wide as the widest layer's."""
    widest = max((layer.value_width for layer in architecture.layers), default=0)
    layers = (replace(layer, value_width=widest) if layer.value_width else layer for layer in architecture.layers)
    return replace(architecture, layers=tuple(layers))


def _layer_cache(layer: Layer, cells: int, engine: Engine, types: tuple[str, str]) -> int:
    cached = _window_cells(layer, cells, engine)
    keys, values = CACHE_TYPES[types[0]], CACHE_TYPES[types[1]]
    return cached * (keys.bytes_of(layer.key_width) + values.bytes_of(layer.value_width))


def _window_cells(layer: Layer, cells: int, engine: Engine) -> int:
    if layer.window == 0:
        return cells
    return -(-min(cells, layer.window + _ubatch(engine)) // CELLS) * CELLS


def _cache_types(engine: Engine) -> tuple[str, str]:
    return given(engine.cache_type_k), given(engine.cache_type_v)


def _ubatch(engine: Engine) -> int:
    batch = given(engine.batch_size)
    return min(batch, engine.ubatch_size if engine.task == "generate" else batch)


def compute_bytes(
    model: Weights, engine: Engine, cache_types: tuple[str, str] | None = None, *, drafts: bool = False
) -> int:
    """Return the compute buffers: what ggml reserves for the largest batch. `drafts`: for it a model drafts tokens."""
    architecture = model.architecture
    cells = cells_per_slot(engine, architecture)
    keys, values = cache_types or _cache_types(engine)
    tokens = min(_ubatch(engine), cells * given(engine.slots))
    cached = [_window_cells(layer, cells, engine) for layer in architecture.layers]
    if not any(layer.key_width or layer.state_floats for layer in architecture.layers):
        cached = [tokens] * len(cached)  # encoders attend to their batch
    batch = Batch(
        tokens=-(-tokens // given(engine.slots)) * given(engine.slots),
        slots=given(engine.slots),
        outputs=max(given(engine.slots), min(tokens, verified_at_once(engine, has_draft=drafts))),
        flash=engine.flash_attention != "off",
        wide=(keys == "f32", values == "f32"),
        rotated=(keys not in _FLOATS, values not in _FLOATS),
    )
    return work_bytes(model.tensors, architecture, cached, batch)


def _checkpoints(architecture: Architecture, engine: Engine) -> int:
    """Windowed and recurrent state cannot be rewound, so llama-server stores checkpoints of it in main memory."""
    cells = cells_per_slot(engine, architecture)
    state = sum(
        layer.state_floats * 4 + (_layer_cache(layer, cells, engine, _cache_types(engine)) if layer.window else 0)
        for layer in architecture.layers
    )
    return given(engine.slots) * min(_MAX_CHECKPOINTS, 1 + cells // _CHECKPOINT_TOKENS) * state


def _draft(inputs: Inputs, draft: Weights, layers_on_device: int) -> Item:
    layers = len(draft.architecture.layers) + 1 if layers_on_device else 0
    items = [
        *_weights(inputs, draft, layers, 0),
        *_caches(draft.architecture, inputs.engine, layers, ("f16", "f16")),
        _placed("", compute_bytes(draft, inputs.engine, ("f16", "f16")), on_device=layers > 0),
    ]
    device, host, mapped = (sum(getattr(item, field) for item in items) for field in ("device", "host", "mapped"))
    return Item("draft model", device, host, mapped)
