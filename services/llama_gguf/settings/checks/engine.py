"""Checks of `engine`: cache and batches that llama-server would reject, arguments that override a setting. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from llama_gguf.errors import Problem
from llama_gguf.settings.checks.reserved_args import ArgRule, is_argument, reserved
from llama_gguf.settings.sections.engine_parts.auto import known
from llama_gguf.settings.sections.settings import Settings

_MAX_CONTEXT = 2**31 - 1
PLAIN_CACHE = ("f32", "f16", "bf16", "auto")  # auto is one of them without flash attention


def cache(settings: Settings) -> Iterator[Problem]:
    """A quantised V cache requires flash attention."""
    engine = settings.engine
    if engine.cache_type_v not in PLAIN_CACHE and engine.flash_attention == "off":
        message = f"engine.cache_type_v: {engine.cache_type_v} requires flash attention, which is off"
        hint = "set engine.flash_attention to auto or on, or cache_type_v to f16"
        yield Problem("cache-needs-flash-attention", message, "engine.cache_type_v", hint=hint)


def batches(settings: Settings) -> Iterator[Problem]:
    """The physical batch is part of the logical one; the input of an embedding must fit in one batch."""
    engine = settings.engine
    batch, context = known(engine.batch_size), known(engine.context_per_slot)
    if batch is None:  # chosen to be large enough
        return
    if engine.task == "generate" and engine.ubatch_size > batch:
        message = f"engine.ubatch_size: {engine.ubatch_size} is more than engine.batch_size, {engine.batch_size}"
        yield Problem("ubatch-over-batch", message, "engine.ubatch_size", hint="set it to at most batch_size")
    elif engine.task != "generate" and context is not None and batch < context:
        message = (
            f"engine.batch_size: inputs of more than {engine.batch_size} tokens will be rejected, although "
            f"engine.context_per_slot allows {engine.context_per_slot}"
        )
        hint = f"set batch_size to {engine.context_per_slot}"
        yield Problem("input-over-batch", message, "engine.batch_size", hint=hint, severity="warning")


def slots(settings: Settings) -> Iterator[Problem]:
    """A batch has room for one token of each slot: llama-server aborts while it loads the model if it has not."""
    engine = settings.engine
    count, batch = known(engine.slots), known(engine.batch_size)
    if count is not None and batch is not None and count > batch:
        message = f"engine.slots: {engine.slots} slots are more than a batch of {engine.batch_size} tokens can serve"
        hint = f"set engine.batch_size to at least {engine.slots} (2048 is the default), or lower engine.slots"
        yield Problem("slots-over-batch", message, "engine.slots", hint=hint)


def pooling(settings: Settings) -> Iterator[Problem]:
    """Pooling types are for embeddings; a reranker has its own."""
    chosen, task = settings.engine.pooling, settings.engine.task
    if task == "embed" and chosen == "rank":
        message = "engine.pooling: rank produces the scores of a reranker, not embeddings"
        hint = "use the one that the model card names, or set engine.task to rerank"
        yield Problem("pooling-unfit", message, "engine.pooling", hint=hint, severity="warning")
    elif chosen != "auto" and not (task == "embed" or (task == "rerank" and chosen == "rank")):
        why = "a reranker always uses rank" if task == "rerank" else f"engine.task is {task}"
        message = f"engine.pooling: has no effect, {why}"
        yield Problem("no-effect", message, "engine.pooling", severity="warning")


def total_context(settings: Settings) -> Iterator[Problem]:
    """The total of all slots is a 32-bit number in llama.cpp."""
    total = (known(settings.engine.context_per_slot) or 0) * (known(settings.engine.slots) or 0)
    if total > _MAX_CONTEXT:
        message = f"engine.context_per_slot: {total} tokens in {settings.engine.slots} slots exceed llama.cpp's maximum"
        yield Problem("context-too-large", message, "engine.context_per_slot")


def in_flight(settings: Settings) -> Iterator[Problem]:
    """More requests in the engine than it has slots wait there, in order of arrival."""
    maximum, slots = settings.limits.max_in_flight, known(settings.engine.slots)
    if maximum is not None and slots is not None and maximum > slots:
        message = (
            f"limits.max_in_flight: {maximum} is more than engine.slots, {slots}; in the engine requests wait without "
            "fairness"
        )
        yield Problem("in-flight-over-slots", message, "limits.max_in_flight", severity="warning")


def extra_args(settings: Settings) -> Iterator[Problem]:
    """Nothing in extra_args repeats or overrides a setting, or exposes what must not be."""
    args = settings.engine.extra_args
    for index, name, rule in reserved(args):
        if rule.kind == "newer_setting":
            yield _beside_setting(settings, f"engine.extra_args[{index}]", name, rule)
        elif rule.kind != "unsafe" or not settings.engine.allow_unsafe_args:
            yield _rejection(f"engine.extra_args[{index}]", name, rule)
    for index, item in enumerate(args):
        if is_argument(item) and len(item.split()) > 1:
            words = ", ".join(f'"{word}"' for word in item.split(maxsplit=1))
            message = f'engine.extra_args[{index}]: "{item}" is an argument and its value in one item'
            yield Problem("joined-argument", message, f"engine.extra_args[{index}]", hint=f"write two items: {words}")
    if args and not is_argument(args[0]):
        message = f'engine.extra_args[0]: "{args[0]}" is a value without an argument before it'
        yield Problem("value-without-argument", message, "engine.extra_args[0]")


def _beside_setting(settings: Settings, path: str, name: str, rule: ArgRule) -> Problem:
    """An argument that had no setting once: still allowed, but not together with the setting."""
    if _value(settings, rule.instead) != _value(Settings(), rule.instead):
        message = f"{path}: {name} is given together with {rule.instead}"
        return Problem("argument-is-a-setting", message, path, hint="remove the argument")
    message = f"{path}: there is a setting for {name}"
    hint = f"set {rule.instead} instead, which is checked"
    return Problem("argument-has-a-setting", message, path, hint=hint, severity="warning")


def _value(settings: Settings, name: str) -> object:
    return functools.reduce(getattr, name.split("."), settings)


def _rejection(path: str, name: str, rule: ArgRule) -> Problem:
    if rule.kind == "setting":
        return Problem(
            "argument-is-a-setting", f"{path}: {name} repeats {rule.instead}", path, hint=f"set {rule.instead}"
        )
    if rule.kind == "owned":
        return Problem("argument-is-ours", f"{path}: {name} is reserved: {rule.instead}", path, hint="remove it")
    hint = "remove it; if you accept the risk, set engine.allow_unsafe_args: true"
    return Problem("unsafe-argument", f"{path}: {name} is unsafe: {rule.instead}", path, hint=hint)
