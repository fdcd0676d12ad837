"""A GGUF header -> the hyperparameters that decide how much memory a model needs besides its weights. Pure.

Follows llama.cpp's hparams: which layers cache keys and values and how wide, which of them only within a sliding
window, and which have a recurrent state of fixed size instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_gguf.models.gguf.header import Header, SkippedArray

# Families whose files can omit which layers use a sliding window: period (one layer in each period attends to
# everything), whether that is its first layer, and the window for files that omit that too.
_WINDOW_PERIODS = {
    "afmoe": (4, False, 0),
    "cohere2": (4, False, 0),
    "cohere2moe": (4, True, 0),
    "exaone-moe": (4, False, 128),
    "exaone4": (4, False, 0),
    "gemma-embedding": (6, False, 0),
    "gemma2": (2, False, 4096),
    "gemma3": (6, False, 0),
    "gemma3n": (5, False, 0),
    "gpt-oss": (2, False, 0),
    "laguna": (4, True, 0),
    "llama4": (4, False, 8192),
    "mellum": (4, False, 0),
    "modern-bert": (3, True, 0),
    "muse-glimmer": (4, False, 0),
    "olmo2": (4, False, 0),
    "plamo3": (8, False, 0),
    "smallthinker": (4, True, 4096),
}
_NO_CACHE = {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "gemma-embedding"}
_GEMMA3N_LAYERS_WITH_CACHE = 20
_FULL_ATTENTION_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}


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
    query_width: int
    heads: int
    feed_forward: int
    experts_used: int
    expert_feed_forward: int
    vocabulary: int


def read_architecture(header: Header) -> Architecture:
    """Return the hyperparameters in `header`; what the file omits counts as 0."""
    name = header.architecture
    width = header.number(f"{name}.embedding_length")
    heads = header.number(f"{name}.attention.head_count")
    key_length = header.number(f"{name}.attention.key_length") or (width // heads if heads else 0)
    used = header.number(f"{name}.expert_used_count")
    feed_forward = header.number(f"{name}.feed_forward_length")
    return Architecture(
        name=name,
        layers=_layers(header, key_length),
        trained_context=header.number(f"{name}.context_length"),
        width=width,
        query_width=heads * key_length,
        heads=heads,
        feed_forward=feed_forward,
        experts_used=used,
        expert_feed_forward=(header.number(f"{name}.expert_feed_forward_length") or feed_forward) if used else 0,
        vocabulary=_vocabulary(header),
    )


def _vocabulary(header: Header) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, SkippedArray):
        return tokens.count
    return header.number(f"{header.architecture}.vocab_size")


def _layers(header: Header, key_length: int) -> tuple[Layer, ...]:
    name = header.architecture
    count = header.number(f"{name}.block_count")
    kv_heads = _per_layer(header, "attention.head_count_kv", count, header.number(f"{name}.attention.head_count"))
    value_length = header.number(f"{name}.attention.value_length") or key_length
    key_length_swa = header.number(f"{name}.attention.key_length_swa") or key_length
    value_length_swa = header.number(f"{name}.attention.value_length_swa") or value_length
    latent = header.number(f"{name}.attention.key_length_mla") > 0  # DeepSeek's: values are part of the keys
    windows = _windows(header, count)
    recurrent, state = _recurrent(header, count, kv_heads), _state_floats(header)
    cached = _layers_with_cache(header, count)
    layers = []
    for index in range(count):
        has_cache = index < cached and (not recurrent[index] or name == "falcon-h1")
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


def _per_layer(header: Header, key: str, count: int, default: int) -> tuple[int, ...]:
    value = header.metadata.get(f"{header.architecture}.{key}")
    if isinstance(value, tuple):
        return tuple(int(item) for item in value[:count]) + (default,) * (count - len(value))
    return (int(value) if isinstance(value, int) else default,) * count


def _windows(header: Header, count: int) -> tuple[int, ...]:
    """Return each layer's window in tokens, 0 for those that attend to the whole context."""
    name = header.architecture
    period, dense_first, default = _WINDOW_PERIODS.get(name, (0, False, 0))
    window = header.number(f"{name}.attention.sliding_window", default)
    if name == "llama4" and window:
        window = 8192  # its windows are chunks of fixed size
    if window == 0:
        return (0,) * count
    pattern = header.metadata.get(f"{name}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        local = [bool(item) for item in pattern[:count]] + [False] * (count - len(pattern))
        return tuple(window if item else 0 for item in local)
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        period = pattern
    if period == 0:
        return (0,) * count  # llama.cpp ignores the window of other families
    full = 0 if dense_first else period - 1
    return tuple(0 if index % period == full else window for index in range(count))


def _layers_with_cache(header: Header, count: int) -> int:
    name = header.architecture
    if name in _NO_CACHE:
        return 0
    if name == "gemma3n":
        return min(count, _GEMMA3N_LAYERS_WITH_CACHE)
    return count - header.number(f"{name}.attention.shared_kv_layers")


def _recurrent(header: Header, count: int, kv_heads: tuple[int, ...]) -> tuple[bool, ...]:
    name = header.architecture
    if not _state_floats(header):
        return (False,) * count
    interval = header.number(f"{name}.full_attention_interval", _FULL_ATTENTION_INTERVAL.get(name, 0))
    if interval:
        return tuple((index + 1) % interval != 0 for index in range(count))
    if name == "falcon-h1" or name.startswith(("mamba", "rwkv", "arwkv")):
        return (True,) * count
    feed_forward = _per_layer(header, "feed_forward_length", count, 0)
    only_without = name.startswith("nemotron_h")  # its layers without attention can also be plain feed-forward ones
    return tuple(heads == 0 and not (only_without and feed_forward[index]) for index, heads in enumerate(kv_heads))


def _state_floats(header: Header) -> int:
    """Return the size of a recurrent layer's state for one sequence."""
    name, number = header.architecture, header.number
    width = number(f"{name}.embedding_length")
    if head := number(f"{name}.wkv.head_size"):
        return width * number(f"{name}.token_shift_count", 2) + width * head
    if cache := number(f"{name}.shortconv.l_cache"):
        return width * (cache - 1)
    heads = number(f"{name}.attention.head_count")
    kernel = number(f"{name}.ssm.conv_kernel")
    if head := number(f"{name}.kda.head_dim"):
        return 3 * max(kernel - 1, 0) * heads * head + head * head * heads
    inner, states = number(f"{name}.ssm.inner_size"), number(f"{name}.ssm.state_size")
    convolution = max(kernel - 1, 0) * (inner + 2 * number(f"{name}.ssm.group_count") * states)
    return convolution + states * inner
