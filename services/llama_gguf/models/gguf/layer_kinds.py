"""Which layers of a model attend within a window only, and which keep a state of fixed size instead of a cache. Pure.

The rules are those of llama.cpp's loaders of each architecture (src/models/*.cpp, llama-hparams.cpp).
"""

from __future__ import annotations

from llama_gguf.models.gguf.hyperparameters import MAX_HEADS, MAX_LAYERS, MAX_WIDTH, Hyperparameters

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
_WINDOW_LISTED = {"dflash", "gemma4", "gemma4-assistant", "granite_swa", "maple", "mimo2", "spark2_5", "step35"}
"""Families whose files always list these layers; llama.cpp ignores the windows of all others."""
_CHUNK = 8192  # llama4's windows are chunks of this size, whatever its file says

_ALL_RECURRENT = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
_BY_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
_WITHOUT_KV_HEADS = {
    "bailingmoe3", "glm5-next", "granitehybrid", "jamba", "kimi-k3", "kimi-linear", "lfm2", "lfm2moe", "plamo2"
}  # fmt: skip
_WITHOUT_KV_HEADS_NOR_FEED_FORWARD = {"nemotron_h", "nemotron_h_moe"}
ALSO_ATTENDING = {"falcon-h1"}
"""Those whose recurrent layers have a cache too."""


def windows_of(values: Hyperparameters, count: int, recurrent: tuple[bool, ...]) -> tuple[int, ...]:
    """Return each layer's window in tokens, 0 for those that attend to the whole context."""
    name = values.header.architecture
    period, dense_first, default = _WINDOW_PERIODS.get(name, (0, False, 0))
    window = values.number("attention.sliding_window", default)
    if window == 0 or not (period or name in _WINDOW_LISTED or name == "lfm2"):
        return (0,) * count
    if name == "lfm2":
        return tuple(0 if state else window for state in recurrent)
    if name == "llama4":
        window = _CHUNK
    if (listed := values.flags("attention.sliding_window_pattern", count)) is not None:
        return tuple(window if item else 0 for item in listed)
    if name in _WINDOW_LISTED:
        raise values.missing("attention.sliding_window_pattern")
    period = values.number("attention.sliding_window_pattern", period, most=MAX_LAYERS)
    if period == 0:
        return (window,) * count
    full = 0 if dense_first else period - 1
    return tuple(0 if index % period == full else window for index in range(count))


def recurrent_of(
    values: Hyperparameters, count: int, trunk: int, kv_heads: tuple[int, ...], feed_forward: tuple[int, ...]
) -> tuple[bool, ...]:
    """Return which layers have a state of fixed size; those from `trunk` on, which predict more tokens, have none."""
    name = values.header.architecture
    if name in _ALL_RECURRENT or name in ALSO_ATTENDING:
        found: tuple[bool, ...] = (True,) * count
    elif name in _BY_INTERVAL:
        listed = values.flags("attention.recurrent_layers", count)
        interval = values.number("full_attention_interval", _BY_INTERVAL[name], least=1)
        found = listed or tuple((index + 1) % interval != 0 for index in range(count))
    elif name in _WITHOUT_KV_HEADS:
        found = tuple(heads == 0 for heads in kv_heads)
    elif name in _WITHOUT_KV_HEADS_NOR_FEED_FORWARD:
        found = tuple(heads == 0 and width == 0 for heads, width in zip(kv_heads, feed_forward, strict=True))
    else:
        found = (False,) * count
    return tuple(state and index < trunk for index, state in enumerate(found))


def state_floats_of(values: Hyperparameters) -> int:
    """Return the size of a recurrent layer's state for one sequence: its convolution's, then its own."""
    name = values.header.architecture

    def number(key: str, default: int = 0) -> int:
        return values.number(key, default, most=MAX_WIDTH)

    width = number("embedding_length")
    if head := number("wkv.head_size"):
        return width * number("token_shift_count", 2) + width * head
    if cache := number("shortconv.l_cache"):
        return width * (cache - 1)
    heads = values.first("attention.head_count", most=MAX_HEADS)
    kernel = number("ssm.conv_kernel")
    if head := number("kda.head_dim"):
        return 3 * (kernel - 1 if kernel else 3) * heads * head + head * head * heads
    inner, states = number("ssm.inner_size"), number("ssm.state_size")
    convolution = max(kernel - 1, 0) * (inner + 2 * number("ssm.group_count") * states)
    if name == "minimax-01":
        head = values.number("attention.key_length", width // heads if heads else 0, most=MAX_WIDTH)
        return convolution + head * head * heads
    return convolution + states * inner
