"""A GGUF header -> the hyperparameters that decide how much memory a model needs besides its weights. Pure.

Follows llama.cpp's hparams: which layers cache keys and values and how wide, which of them only within a sliding
window, and which have a recurrent state of fixed size instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.header import Header, SkippedArray
from llama_gguf.models.gguf.hyperparameters import (
    MAX_EXPERTS,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_WIDTH,
    Hyperparameters,
)
from llama_gguf.models.gguf.known_architectures import UPDATE_HINT, problem_of
from llama_gguf.models.gguf.layer_kinds import ALSO_ATTENDING, recurrent_of, state_floats_of, windows_of

_NO_CACHE = {
    "bert", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe",
    "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "wavtokenizer-dec",
}  # fmt: skip
_GEMMA3N_LAYERS_WITH_CACHE = 20

_NEVER_LOADED = {"bailingmoe2", "dots3note", "exaone-moe", "exaone4", "glm4"}
_LOADED_FOR_SPECULATION = {
    "bailingmoe3", "cohere2moe", "deepseek2", "deepseek32", "deepseek4", "glm-dsa", "glm4moe", "glm5-next", "hy_v3",
    "mimo2", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next", "step35",
}  # fmt: skip
"""Families whose layers for multi-token prediction are in the file, but only loaded for --spec-type draft-mtp."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer caches: key and value widths per token, the window (0 = whole context), state per sequence."""

    key_width: int
    value_width: int
    window: int
    state_floats: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """The hyperparameters of one model; widths in values, not bytes."""

    name: str
    layers: tuple[Layer, ...]
    trained_context: int
    width: int
    experts_used: int
    vocabulary: int
    trunk: int = MAX_LAYERS  # the layers after these predict more tokens at once (MTP): usually not loaded
    loads_more: bool = False  # whether those can be loaded
    layer_heads: tuple[int, ...] = ()
    expert_groups: int = 0
    groups_used: int = 0
    per_layer_width: int = 0  # of embeddings that are added in each layer
    prediction: tuple[Layer, ...] = ()  # what the layers after the trunk cache, in a context of their own, if loaded


def read_architecture(header: Header) -> Architecture:
    """Return the hyperparameters in `header`.

    Raises a permanent ModelError if llama-server does not know the architecture or cannot load such a model.
    """
    if problem := problem_of(header):
        raise ModelError(
            f"{header.path} is not a model that llama-server loads: {problem}",
            code="model_unsupported",
            hint=UPDATE_HINT,
        )
    values = Hyperparameters(header)
    name = header.architecture
    width = values.required("embedding_length", most=MAX_WIDTH)
    count = values.required("block_count", most=MAX_LAYERS)
    more = values.number("nextn_predict_layers", most=MAX_LAYERS)
    if more > count:
        raise values.unfit("nextn_predict_layers", more, f"at most the {count} layers of block_count")
    heads = values.per_layer("attention.head_count", count, most=MAX_HEADS)
    head_width = width // next((count for count in heads if count), width)  # 0 or 1 for models without attention
    feed_forward = values.per_layer("feed_forward_length", count, most=MAX_WIDTH)
    used = _experts_used(values, count)
    skipped = name in _NEVER_LOADED or name in _LOADED_FOR_SPECULATION
    trunk = count - more if skipped else count
    return Architecture(
        name=name,
        layers=_layers(values, head_width, heads, feed_forward, (trunk, trunk)) * _loops(values, count),
        trained_context=values.required("context_length"),
        width=width,
        experts_used=used,
        vocabulary=_vocabulary(values),
        trunk=trunk if skipped else MAX_LAYERS,
        loads_more=name in _LOADED_FOR_SPECULATION and more > 0,
        layer_heads=heads,
        prediction=_layers(values, head_width, heads, feed_forward, (trunk, count))[trunk:] if skipped else (),
        expert_groups=values.number("expert_group_count", most=MAX_EXPERTS),
        groups_used=values.number("expert_group_used_count", most=MAX_EXPERTS),
        per_layer_width=values.number("embedding_length_per_layer_input", most=MAX_WIDTH),
    )


def _experts_used(values: Hyperparameters, count: int) -> int:
    experts = values.number("expert_count", most=MAX_EXPERTS)
    used = max(values.per_layer("expert_used_count", count, most=MAX_EXPERTS))
    if values.header.architecture.startswith("hunyuan") and experts <= 1:
        return 0
    if used > experts or (experts and not used):
        raise values.unfit("expert_used_count", used, f"1 to the {experts} of expert_count" if experts else "0")
    return used


def _vocabulary(values: Hyperparameters) -> int:
    tokens = values.header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, SkippedArray):
        return tokens.count
    return values.number("vocab_size", most=1 << 28)


def _loops(values: Hyperparameters, count: int) -> int:
    """Return how often the layers are run through, each time with a cache of its own."""
    if values.header.architecture != "nanbeige":
        return 1
    return values.number("num_loops", 1, least=1, most=max(1, MAX_LAYERS // count))


def _layers(
    values: Hyperparameters,
    head_width: int,
    heads: tuple[int, ...],
    feed_forward: tuple[int, ...],
    until: tuple[int, int],
) -> tuple[Layer, ...]:
    """Return what each layer caches; those from `until` on have no state, and none of them has a cache."""
    trunk, end = until
    name, count = values.header.architecture, len(heads)
    kv_heads = _kv_heads(values, heads)
    key_length = values.number("attention.key_length", head_width, most=MAX_WIDTH)
    value_length = values.number("attention.value_length", head_width, most=MAX_WIDTH)
    key_length_swa = values.number("attention.key_length_swa", key_length, most=MAX_WIDTH)
    value_length_swa = values.number("attention.value_length_swa", value_length, most=MAX_WIDTH)
    latent = values.number("attention.key_length_mla", most=MAX_WIDTH) > 0  # DeepSeek's: values are part of the keys
    recurrent = recurrent_of(values, count, trunk, kv_heads, feed_forward)
    windows = windows_of(values, count, recurrent)
    state = state_floats_of(values) if any(recurrent) else 0
    cached = min(_layers_with_cache(values, count), end)
    layers = []
    for index in range(count):
        has_cache = index < cached and (not recurrent[index] or name in ALSO_ATTENDING)
        local = windows[index] > 0
        layers.append(
            Layer(
                key_width=kv_heads[index] * (key_length_swa if local else key_length) if has_cache else 0,
                value_width=kv_heads[index] * (value_length_swa if local else value_length)
                if has_cache and not latent
                else 0,
                window=windows[index],
                state_floats=state if recurrent[index] else 0,
            )
        )
    return tuple(layers)


def _kv_heads(values: Hyperparameters, heads: tuple[int, ...]) -> tuple[int, ...]:
    if f"{values.header.architecture}.attention.head_count_kv" not in values.header.metadata:
        return heads
    return values.per_layer("attention.head_count_kv", len(heads), most=MAX_HEADS)


def _layers_with_cache(values: Hyperparameters, count: int) -> int:
    name = values.header.architecture
    if name in _NO_CACHE:
        return 0
    if name == "gemma3n":
        return min(count, _GEMMA3N_LAYERS_WITH_CACHE)
    if name not in ("gemma4", "gemma4-assistant"):
        return count
    return count - values.number("attention.shared_kv_layers", most=count)
