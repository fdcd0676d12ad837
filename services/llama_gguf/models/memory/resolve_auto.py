"""Settings that are left to the plan -> values, each with the reason for it. Pure.

What is chosen, in this order: batch, types of cache, context, slots. A value that the operator set is never touched,
and nothing is chosen below the minima: then it does not fit, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gguf.models.memory.estimate import CELLS, MIB
from llama_gguf.models.memory.plan import MemoryPlan
from llama_gguf.models.memory.together import largest
from llama_gguf.settings.checks.draft_tokens import longest_draft
from llama_gguf.settings.sections.engine_parts.auto import AUTO, automatic, given, known

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

PlanOf = Callable[["Engine"], MemoryPlan]
"""Plans the memory of one model with some settings; everything else is the same each time."""

MOST_SLOTS = 16
_MOST_CONTEXT = 16_777_216  # of the setting
_MOST_TOKENS = 2**31 - 1  # of all slots
_UNKNOWN_CONTEXT = 4096  # where the file does not say what the model was trained with
_BATCH = 2048
_SMALLER_CACHE = "q8_0"
_BLOCK = 32  # llama.cpp quantises a head's row of the cache in blocks of so many values
_SMALL_BATCH, _SMALL_UBATCH = 512, 256


@dataclass(frozen=True, slots=True)
class Choice:
    """One setting that was chosen."""

    setting: str
    value: int | str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings without anything left open but gpu_layers, why they are so, and whether they fit."""

    engine: Engine
    choices: tuple[Choice, ...] = ()
    fits: bool = True

    @property
    def values(self) -> dict[str, int | str]:
        """The values that were chosen, by setting."""
        return {choice.setting: choice.value for choice in self.choices}


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model's own shape allows, whatever memory there is."""

    context: int  # that it was trained with, or that YaRN gives it; 0: not known
    has_draft: bool = False
    quantisable: bool = True  # whether its cache can have another type


def unresolved(engine: Engine) -> Resolved:
    """Return the least for each setting that is `auto`, because the model's file is not known."""
    least = engine.model_copy(update=_least(engine, ModelLimits(context=0)))
    reason = "the least; more if it fits, once the model's file is known"
    return Resolved(least, tuple(Choice(name, getattr(least, name), reason) for name in automatic(engine)))


def layers_choice(plan: MemoryPlan) -> Choice:
    """Return how many layers llama-server is expected to put on the GPU by itself, and why."""
    if plan.layers_on_device == plan.layers:
        reason = "all fit on the GPU" if plan.device_capacity is not None else "the GPU's memory is not known"
    else:
        reason = f"of {plan.layers}, the most that fit on the GPU; the rest is slow"
    return Choice("gpu_layers", plan.layers_on_device, reason)


def resolve_auto(engine: Engine, limits: ModelLimits, plan_of: PlanOf) -> Resolved:
    """Return the settings with a value for each that is `auto`: what serves most of what fits.

    `plan_of` has to count with less memory than there is, as far as its plans can be wrong.
    """
    left = automatic(engine)
    if not left:
        return Resolved(engine)
    choices: list[Choice] = []

    def replan(tried: Engine) -> MemoryPlan:
        return plan_of(_with_batch(tried, limits, is_open="batch_size" in left))

    current = engine.model_copy(update=_least(engine, limits))
    unknown = replan(current).verdict == "unknown" and not _knows_memory(replan(current))
    if unknown:
        current = _with_batch(current, limits, is_open="batch_size" in left)
        reason = "the least, because the machine's memory is not known"
        return Resolved(current, tuple(Choice(name, getattr(current, name), reason) for name in left))
    if "batch_size" in left:
        current = _batch(current, limits, replan, choices)
    if "cache_type_k" in left or "cache_type_v" in left:
        current = _cache_types(current, engine, limits, replan, choices)
    if "context_per_slot" in left:
        current = _context(current, limits, replan, choices)
    if "slots" in left:
        current = _slots(current, limits, replan, choices, batch_is_open="batch_size" in left)
    fits = replan(current).verdict != "does not fit"
    final = _with_batch(current, limits, is_open="batch_size" in left)
    choices = [
        Choice("batch_size", given(final.batch_size), _BATCH_OF_INPUTS) if _follows_context(final, choice) else choice
        for choice in choices
    ]
    return Resolved(final, tuple(choices), fits)


_BATCH_OF_INPUTS = "as long as the context, so that an input is processed at once"


def _follows_context(engine: Engine, choice: Choice) -> bool:
    return choice.setting == "batch_size" and engine.task != "generate"


def _knows_memory(plan: MemoryPlan) -> bool:
    return plan.device_capacity is not None or plan.host_capacity is not None


def _with_batch(engine: Engine, limits: ModelLimits, *, is_open: bool) -> Engine:
    """Return the settings with a batch that the task and drafts need, if it is left open."""
    if not is_open:
        return engine
    drafted = given(engine.slots) * (1 + longest_draft(engine, has_draft=limits.has_draft))
    if engine.task != "generate":
        # The file's context, where that is taken as it is.
        context = given(engine.context_per_slot) or limits.context or _UNKNOWN_CONTEXT
        return engine.model_copy(update={"batch_size": min(max(context, drafted), 65_536)})
    return engine.model_copy(update={"batch_size": min(max(given(engine.batch_size), drafted), 65_536)})


def _least(engine: Engine, limits: ModelLimits) -> dict[str, int | str]:
    """Return the least that each open setting may become; the rest is found upwards from there."""
    least: dict[str, int | str] = {}
    if engine.context_per_slot == AUTO:
        wanted = max(CELLS, engine.shrink.min_context_per_slot)
        least["context_per_slot"] = min(wanted, _most_context(engine, limits))
    if engine.slots == AUTO:
        least["slots"] = engine.shrink.min_slots
    if engine.batch_size == AUTO:
        least["batch_size"] = max(_BATCH, engine.ubatch_size)
    least |= {name: "f16" for name in ("cache_type_k", "cache_type_v") if getattr(engine, name) == AUTO}
    return least


def _most_context(engine: Engine, limits: ModelLimits) -> int:
    slots = known(engine.slots) or engine.shrink.min_slots
    most = min(limits.context or _UNKNOWN_CONTEXT, _MOST_CONTEXT, _MOST_TOKENS // slots)
    return max(1, most if most < CELLS else most // CELLS * CELLS)


def _batch(engine: Engine, limits: ModelLimits, replan: PlanOf, choices: list[Choice]) -> Engine:
    plan = replan(engine)
    reason = "the usual size fits"
    if engine.task == "generate" and not _fits(plan):
        small = {"batch_size": _SMALL_BATCH, "ubatch_size": min(engine.ubatch_size, _SMALL_UBATCH)}
        engine = engine.model_copy(update=small)
        smaller = replan(engine)
        saved = (plan.device + plan.host - smaller.device - smaller.host) / MIB
        reason = f"saves {saved:.0f} MiB of compute buffers; prompts are processed more slowly"
        choices.append(Choice("ubatch_size", engine.ubatch_size, "part of a smaller batch"))
    chosen = _with_batch(engine, limits, is_open=True)
    choices.append(Choice("batch_size", given(chosen.batch_size), reason))
    return chosen


def _cache_types(engine: Engine, asked: Engine, limits: ModelLimits, replan: PlanOf, choices: list[Choice]) -> Engine:
    reasons = {name: "full precision fits" for name in ("cache_type_k", "cache_type_v") if getattr(asked, name) == AUTO}
    if not _fits(replan(engine)):
        for name in reasons:
            if not limits.quantisable:
                reasons[name] = "the heads of this model cannot be quantised"
            elif name == "cache_type_v" and engine.flash_attention == "off":
                reasons[name] = "without flash attention values cannot be quantised"
            else:
                engine = engine.model_copy(update={name: _SMALLER_CACHE})
                reasons[name] = "about half of full precision, which does not fit"
    choices += [Choice(name, getattr(engine, name), reason) for name, reason in reasons.items()]
    return engine


def _fits(plan: MemoryPlan) -> bool:
    """Return whether a plan fits; with the layers on the GPU left open, only if some of them do."""
    return plan.verdict != "does not fit" and (plan.device_capacity in (0, None) or plan.layers_on_device > 0)


def _context(engine: Engine, limits: ModelLimits, replan: PlanOf, choices: list[Choice]) -> Engine:
    least = given(engine.context_per_slot)
    most = _most_context(engine, limits)
    found = max(least, largest(replan, engine, "context_per_slot", most))
    if not limits.context:
        reason = "the model's file does not say what it was trained for"
    elif found >= most:
        reason = "what the model was trained for, for each slot"
    elif found > least:
        slots = given(engine.slots)
        shown = f"{slots} slots" if slots > 1 else "one slot"
        reason = f"the most that fits with {shown}, of {limits.context} that the model was trained for"
    else:
        reason = "the least that is allowed (engine.shrink.min_context_per_slot)"
    choices.append(Choice("context_per_slot", found, reason))
    return engine.model_copy(update={"context_per_slot": found})


def _slots(
    engine: Engine, limits: ModelLimits, replan: PlanOf, choices: list[Choice], *, batch_is_open: bool
) -> Engine:
    least = given(engine.slots)
    most = max(least, MOST_SLOTS)
    per_slot = 1 + longest_draft(engine, has_draft=limits.has_draft)
    if not batch_is_open:  # else the batch follows the slots
        most = max(least, min(most, given(engine.batch_size) // per_slot))
    if context := given(engine.context_per_slot):
        most = max(least, min(most, _MOST_TOKENS // context))
    found = max(least, largest(replan, engine, "slots", most))
    if found >= MOST_SLOTS:
        reason = "the most that auto chooses, and they fit"
    elif found >= most > least:
        reason = "the most that a batch has room for"
    elif found > least:
        reason = f"the most that fit with {context or limits.context} tokens each"
    else:
        reason = "the least that is allowed (engine.shrink.min_slots)"
    choices.append(Choice("slots", found, reason))
    return engine.model_copy(update={"slots": found})
