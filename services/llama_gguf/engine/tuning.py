"""Settings that fit a model to its machine and its use -> llama-server's arguments. Pure; a part of `argv`.

Only what is set is passed: each default means llama-server's own choice, which depends on model and machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

_NGRAM_ARGUMENTS = {
    "ngram-simple": ("--spec-ngram-simple-size-n", "--spec-ngram-simple-size-m", "--spec-ngram-simple-min-hits"),
    "ngram-map-k": ("--spec-ngram-map-k-size-n", "--spec-ngram-map-k-size-m", "--spec-ngram-map-k-min-hits"),
    "ngram-map-k4v": ("--spec-ngram-map-k4v-size-n", "--spec-ngram-map-k4v-size-m", "--spec-ngram-map-k4v-min-hits"),
}
"""Arguments for the length of what repeats, the length of the draft, and the number of repetitions."""


def placement(engine: Engine) -> list[str]:
    """Return which device gets which part of the model, and how weights are read."""
    arguments = [
        *_given("--device", ",".join(engine.devices)),
        *_given("--split-mode", engine.split_mode, "auto"),
        *_given("--tensor-split", ",".join(f"{share:.9g}" for share in engine.tensor_split)),
        *_given("--main-gpu", engine.main_gpu),
        *_given("--load-mode", engine.load_mode, "auto"),
        *_given("--numa", engine.numa, "off"),
        *_given("--cache-reuse", engine.cache_reuse_tokens, 0),
    ]
    if engine.cpu_moe_layers == "all":
        return [*arguments, "--cpu-moe"]
    return [*arguments, *_given("--n-cpu-moe", engine.cpu_moe_layers, 0)]


def rope(engine: Engine) -> list[str]:
    """Return how positions beyond the trained context are encoded."""
    chosen = engine.rope
    return [
        *_given("--rope-scaling", chosen.scaling, "auto"),
        *_given("--rope-scale", chosen.scale),
        *_given("--rope-freq-base", chosen.freq_base),
        *_given("--yarn-orig-ctx", chosen.yarn_original_context),
        *_given("--yarn-ext-factor", chosen.yarn_extrapolation_factor),
        *_given("--yarn-attn-factor", chosen.yarn_attention_factor),
        *_given("--yarn-beta-slow", chosen.yarn_beta_slow),
        *_given("--yarn-beta-fast", chosen.yarn_beta_fast),
    ]


def reasoning(engine: Engine) -> list[str]:
    """Return whether the model reasons, how much, and where that is in a response."""
    chosen = engine.reasoning
    return [
        *_given("--reasoning", chosen.mode, "auto"),
        *_given("--reasoning-format", chosen.format, "auto"),
        *_given("--reasoning-effort", chosen.effort),
        *_given("--reasoning-budget", chosen.budget_tokens),
        *_given("--reasoning-budget-message", chosen.budget_message),
    ]


def speculation(engine: Engine, *, drafts: bool) -> list[str]:
    """Return the numbers of speculative decoding, and its types where they are set; `drafts`: a draft model does."""
    chosen = engine.speculative
    drafts = drafts or any(name.startswith("draft-") for name in chosen.types)
    arguments = _given("--spec-type", ",".join(chosen.types))
    if drafts:
        arguments += _given("--spec-draft-n-max", chosen.max_tokens)
        arguments += _given("--spec-draft-n-min", chosen.min_tokens)
        arguments += _given("--spec-draft-p-min", chosen.min_probability)
    if "ngram-mod" in chosen.types:
        arguments += _given("--spec-ngram-mod-n-match", chosen.ngram_size)
        arguments += _given("--spec-ngram-mod-n-max", chosen.max_tokens)
        arguments += _given("--spec-ngram-mod-n-min", chosen.min_tokens)
    for name, (size, length, hits) in _NGRAM_ARGUMENTS.items():
        if name in chosen.types:
            arguments += _given(size, chosen.ngram_size)
            arguments += _given(length, chosen.max_tokens)
            arguments += _given(hits, chosen.ngram_min_hits)
    return arguments


def _given(name: str, value: float | str | None, default: float | str = "") -> list[str]:
    """Return the argument, nothing if it is not set."""
    if value is None or value == default:
        return []
    return [name, f"{value:.9g}" if isinstance(value, float) else str(value)]
