"""Settings that are left to the plan -> values, each with the reason for it. Pure.

What is chosen, in this order: layers on the GPU, types of cache, context, slots. A value that the operator set is never
touched, and nothing is chosen below the minima: then it does not fit, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llama_gguf.models.memory.estimate import CELLS, MIB
from llama_gguf.models.memory.plan import MemoryPlan
from llama_gguf.models.memory.together import largest

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

Automatic = Literal["context_per_slot", "slots", "gpu_layers", "batch_size", "cache_types"]
"""Settings of the engine that can be left to the plan; `cache_types` are cache_type_k and cache_type_v together."""

PlanOf = Callable[["Engine"], MemoryPlan]
"""Plans the memory of one model with some settings; everything else is the same each time."""

_SMALLER_CACHE = "q8_0"
_SMALL_BATCH, _SMALL_UBATCH = 512, 256


@dataclass(frozen=True, slots=True)
class Minima:
    """What the operator needs at least, and wants at most."""

    context_per_slot: int = 4096
    slots: int = 1
    most_slots: int = 16


@dataclass(frozen=True, slots=True)
class Choice:
    """One setting that was chosen."""

    setting: str
    value: int | str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings without anything left open, why they are so, and what they take."""

    engine: Engine
    choices: tuple[Choice, ...]
    plan: MemoryPlan


def resolve_auto(
    engine: Engine,
    automatic: Collection[Automatic],
    trained_context: int,
    plan_of: PlanOf,
    minima: Minima | None = None,
) -> Resolved:
    """Return the settings with a value for each that is `automatic`: what serves most of what fits."""
    wanted = minima or Minima()
    choices: list[Choice] = []
    least = engine.model_copy(update=_least(engine, automatic, trained_context, wanted))
    if "cache_types" in automatic or "batch_size" in automatic:
        least = _smaller(least, automatic, plan_of, choices)
    current = least
    if "context_per_slot" in automatic:
        current = _context(current, trained_context, plan_of, choices)
    if "slots" in automatic:
        current = _slots(current, plan_of, wanted, choices)
    plan = plan_of(current)
    if "gpu_layers" in automatic:
        choices.insert(0, Choice("gpu_layers", plan.layers_on_device, _layers_reason(plan)))
        current = current.model_copy(update={"gpu_layers": plan.layers_on_device})
        plan = plan_of(current)
    return Resolved(current, tuple(choices), plan)


def _least(engine: Engine, automatic: Collection[Automatic], trained: int, minima: Minima) -> dict[str, int | str]:
    """Return the least that each open setting may become; the rest is found upwards from there."""
    least: dict[str, int | str] = {}
    if "context_per_slot" in automatic:
        least["context_per_slot"] = _rounded(min(minima.context_per_slot, trained or minima.context_per_slot))
    if "slots" in automatic:
        least["slots"] = minima.slots
    if "cache_types" in automatic:
        least |= {"cache_type_k": "f16", "cache_type_v": "f16"}
    return least


def _smaller(engine: Engine, automatic: Collection[Automatic], plan_of: PlanOf, choices: list[Choice]) -> Engine:
    """Take smaller caches and batches if not even the least fits without, as far as they may be chosen."""
    plan = plan_of(engine)
    fits = _fits(plan)
    if "batch_size" in automatic:
        if not fits:
            engine = engine.model_copy(update={"batch_size": _SMALL_BATCH, "ubatch_size": _SMALL_UBATCH})
            smaller = plan_of(engine)
            saved = plan.device + plan.host - smaller.device - smaller.host
            reason = f"saves {saved / MIB:.0f} MiB of compute buffers; prompts are processed more slowly"
            plan, fits = smaller, _fits(smaller)
        else:
            reason = "the usual size fits"
        choices.append(Choice("batch_size", engine.batch_size, reason))
    if "cache_types" in automatic:
        reason = "full precision fits"
        if not fits and engine.flash_attention == "off":
            reason = "without flash attention values cannot be quantised"
        elif not fits:
            engine = engine.model_copy(update={"cache_type_k": _SMALLER_CACHE, "cache_type_v": _SMALLER_CACHE})
            reason = "halves the KV cache, which does not fit with full precision"
        choices.append(Choice("cache_types", engine.cache_type_k, reason))
    return engine


def _fits(plan: MemoryPlan) -> bool:
    """Return whether a plan fits; with the layers on the GPU left open, only if all of them do."""
    return plan.verdict != "does not fit" and (plan.device_capacity in (0, None) or plan.layers_on_device > 0)


def _context(engine: Engine, trained: int, plan_of: PlanOf, choices: list[Choice]) -> Engine:
    least = engine.context_per_slot
    most = _rounded(trained) if trained else least
    found = max(least, largest(plan_of, engine, "context_per_slot", most))
    if found >= most:
        reason = "what the model was trained for, for each slot"
    elif found > least:
        slots = f"{engine.slots} slots" if engine.slots > 1 else "one slot"
        reason = f"the most that fits with {slots}, of {trained} that the model was trained for"
    else:
        reason = "the least that is wanted"
    choices.append(Choice("context_per_slot", found, reason))
    return engine.model_copy(update={"context_per_slot": found})


def _slots(engine: Engine, plan_of: PlanOf, minima: Minima, choices: list[Choice]) -> Engine:
    found = max(minima.slots, largest(plan_of, engine, "slots", max(minima.slots, minima.most_slots)))
    if found >= minima.most_slots:
        reason = "as many as wanted"
    elif found > minima.slots:
        reason = f"the most that fit with {engine.context_per_slot} tokens each"
    else:
        reason = "the least that is wanted"
    choices.append(Choice("slots", found, reason))
    return engine.model_copy(update={"slots": found})


def _layers_reason(plan: MemoryPlan) -> str:
    if plan.device_capacity == 0:
        return "there is no GPU"
    if plan.layers_on_device == plan.layers:
        return "all fit on the GPU" if plan.device_capacity is not None else "the GPU's memory is not known"
    return f"of {plan.layers}, the most that fit on the GPU; the rest is slow"


def _rounded(context: int) -> int:
    return max(CELLS, context // CELLS * CELLS)
