"""Checks of what is where: devices and their shares, experts, RoPE, reuse of cached text, what may shrink. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from llama_gguf.errors import Problem
from llama_gguf.settings.sections.engine_parts.auto import known
from llama_gguf.settings.sections.settings import Settings


def devices(settings: Settings) -> Iterator[Problem]:
    """Each device once, with a share if any has one; an own choice of the main GPU needs a mode that has one."""
    engine = settings.engine
    names, shares = engine.devices, engine.tensor_split
    if len(set(names)) < len(names):
        yield Problem("bad-devices", "engine.devices: a device is given twice", "engine.devices")
    if shares and names and len(shares) != len(names):
        message = f"engine.tensor_split: {len(shares)} shares for {len(names)} devices"
        yield Problem("bad-devices", message, "engine.tensor_split", hint="give one for each of engine.devices")
    if shares and not any(shares):
        message = "engine.tensor_split: all shares are 0"
        yield Problem("bad-devices", message, "engine.tensor_split", hint="give the used devices a share above 0")
    main = engine.main_gpu
    if main is not None and names and main >= len(names):
        message = f"engine.main_gpu: {main} is not one of the {len(names)} devices, which count from 0"
        yield Problem("bad-devices", message, "engine.main_gpu", hint=f"set it to at most {len(names) - 1}")
    if engine.split_mode == "tensor" and engine.flash_attention == "off":
        message = "engine.split_mode: tensor requires flash attention, which is off"
        yield Problem("bad-devices", message, "engine.split_mode", hint="set engine.flash_attention to auto or on")


def unused(settings: Settings) -> Iterator[Problem]:
    """Settings of GPUs need layers there, and modes that use them."""
    engine = settings.engine
    given = {
        "devices": engine.devices,
        "split_mode": engine.split_mode != "auto",
        "tensor_split": engine.tensor_split,
        "main_gpu": engine.main_gpu is not None,
        "cpu_moe_layers": engine.cpu_moe_layers != 0,
    }
    for name, is_set in given.items():
        if is_set and engine.gpu_layers == 0:
            yield _no_effect(f"engine.{name}", "engine.gpu_layers is 0")
    if engine.gpu_layers != 0 and engine.tensor_split and engine.split_mode == "none":
        yield _no_effect("engine.tensor_split", "engine.split_mode is none")
    if engine.gpu_layers != 0 and engine.main_gpu is not None and engine.split_mode in ("auto", "layer", "tensor"):
        yield _no_effect("engine.main_gpu", "it needs engine.split_mode none or row")


def rope(settings: Settings) -> Iterator[Problem]:
    """A factor needs a method, and YaRN's numbers need YaRN."""
    chosen, place = settings.engine.rope, "engine.rope"
    if chosen.scaling == "none" and chosen.scale is not None:
        message = f"{place}.scale: contradicts {place}.scaling, which is none"
        yield Problem("bad-rope", message, f"{place}.scale", hint="remove one of both")
    if chosen.scaling in ("linear", "yarn") and chosen.scale is None:
        message = f"{place}.scaling: {chosen.scaling} scales nothing without a scale, unless the model's file has one"
        hint = f"set {place}.scale: wanted context divided by trained context"
        yield Problem("no-effect", message, f"{place}.scaling", hint=hint, severity="warning")
    if chosen.scaling in ("none", "linear"):
        for name, value in vars(chosen).items():
            if name.startswith("yarn_") and value is not None:
                yield _no_effect(f"{place}.{name}", f"{place}.scaling is {chosen.scaling}")


def shrink(settings: Settings) -> Iterator[Problem]:
    """Each step can reduce something: what it begins with is above its minimum."""
    engine = settings.engine
    allowed = engine.shrink
    slots, context = known(engine.slots), known(engine.context_per_slot)
    why = {
        "slots": (slots is not None and slots <= allowed.min_slots, f"engine.slots is {slots}"),
        "context": (
            context is not None and context <= allowed.min_context_per_slot,
            f"engine.context_per_slot is {context}",
        ),
        "layers": (
            isinstance(engine.gpu_layers, int) and engine.gpu_layers <= allowed.min_gpu_layers,
            f"engine.gpu_layers is {engine.gpu_layers}",
        ),
    }
    for number, step in enumerate(allowed.steps):
        is_useless, value = why.get(step, (False, ""))
        if is_useless:
            yield _no_effect(f"engine.shrink.steps[{number}]", f"{value}, so {step} cannot be reduced")


def cache_reuse(settings: Settings) -> Iterator[Problem]:
    """Only text can be moved within the cache, and only generation has one."""
    engine = settings.engine
    if engine.cache_reuse_tokens == 0:
        return
    if engine.task != "generate":
        yield _no_effect("engine.cache_reuse_tokens", f"engine.task is {engine.task}")
    elif settings.model.mmproj is not None:
        yield _no_effect("engine.cache_reuse_tokens", "llama-server turns it off for models with a projector")


def _no_effect(place: str, why: str) -> Problem:
    return Problem("no-effect", f"{place}: has no effect, {why}", place, severity="warning")
