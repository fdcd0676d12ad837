"""One model on several GPUs: each layer is on one of them, so each GPU is planned by itself. Pure.

Follows llama.cpp: without --fit the layers are split in proportion to the GPUs' free memory; --fit, where that is not
possible, fills one GPU after the other from the last layer on.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from llama_gguf.models.memory.devices import Gpu
from llama_gguf.models.memory.estimate import DEVICE_CONTEXT_BYTES, host_experts
from llama_gguf.models.memory.plan import FIT_MARGIN_BYTES, Item, MemoryPlan, Verdict

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

_NUMBER = re.compile(r"\d{1,9}(?:\.\d{0,9})?")
_LAST_NUMBER = re.compile(r"\d{1,4}$")
_ON_EACH = {"compute buffers", "program"}
_ON_THE_FIRST = {"multimodal projector"}
_SPREAD = {"draft model", "LoRA adapters"}  # by free memory, as the layers they belong to


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several GPUs gets of a model, in bytes."""

    gpu: Gpu
    layers: int
    device: int

    @property
    def full(self) -> bool:
        """Whether it is more than the GPU has."""
        return self.device > self.gpu.total_bytes


@dataclass(frozen=True, slots=True)
class SeveralGpusPlan(MemoryPlan):
    """A plan whose GPUs are not one memory: the model fits only if each of them holds its share."""

    shares: tuple[Share, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Whether the model fits into each memory."""
        full = any(share.full for share in self.shares)
        return "does not fit" if full else MemoryPlan.verdict.__get__(self)


def plan_on_gpus(replan: Callable[[Engine], MemoryPlan], engine: Engine, gpus: Sequence[Gpu]) -> SeveralGpusPlan:
    """Return the plan of a model on several GPUs; `replan` plans for a number of layers on all of them together."""
    known: dict[int, MemoryPlan] = {}

    def at(layers: int) -> MemoryPlan:
        if layers not in known:
            known[layers] = replan(engine.model_copy(update={"gpu_layers": layers}))
        return known[layers]

    wanted = engine.gpu_layers
    top = at(0).layers
    given = given_split(engine, len(gpus))
    counts = _split(given or _free(gpus), top if isinstance(wanted, str) else min(wanted, top))
    fits = engine.fit and not given and not host_experts(engine)  # these turn --fit off
    if wanted == "auto" and fits and not _has_margin(_shares(at, gpus, counts)):
        counts = _filled(at, gpus, top)
    shares = _shares(at, gpus, counts)
    plan = at(sum(counts))
    found = {field.name: getattr(plan, field.name) for field in fields(MemoryPlan)}
    several = SeveralGpusPlan(
        **found
        | {
            "items": tuple(_multiplied(item, gpus, counts) for item in plan.items),
            "device_capacity": sum(gpu.total_bytes for gpu in gpus),
            "assumptions": (*plan.assumptions, _ASSUMED),
        },
        shares=shares,
    )
    return replace(several, advice=_advice(several, engine))


def _multiplied(item: Item, gpus: Sequence[Gpu], counts: Sequence[int]) -> Item:
    """Return an item of the plan for one GPU as all of them need it."""
    if item.name == "compute buffers":
        return replace(item, device=item.device * sum(1 for count in counts if count))
    if item.name == "program":
        return replace(item, device=item.device * len(gpus))
    return item


_ASSUMED = "the compute buffers of each GPU are as large as those of a single one, which has no copies for the others"


def chosen_gpus(engine: Engine, count: int) -> tuple[int, ...]:
    """Return which of `count` GPUs a model uses: those of `devices`, or one with split_mode none; else all.

    Their names end in their number. Names that the machine does not have choose nothing: llama-server refuses them.
    """
    given = _given(engine.extra_args)
    names = engine.devices or tuple(filter(None, (given.get("--device") or given.get("-dev") or "").split(",")))
    numbers = [int(match[0]) for name in names if (match := _LAST_NUMBER.search(name))]
    chosen = tuple(numbers if names and len(numbers) == len(names) else range(count))
    if any(number >= count for number in chosen):
        return tuple(range(count))
    mode = given.get("--split-mode") or given.get("-sm") or engine.split_mode
    if mode != "none" or not chosen:
        return chosen
    main = given.get("--main-gpu") or given.get("-mg") or str(engine.main_gpu or 0)
    return (chosen[int(main)],) if main.isdecimal() and int(main) < len(chosen) else chosen[:1]


def given_split(engine: Engine, gpus: int) -> tuple[float, ...]:
    """Return the proportions that the configuration gives the GPUs, () if it gives none."""
    given = _given(engine.extra_args)
    text = given.get("--tensor-split") or given.get("-ts") or ""
    parts = engine.tensor_split or [float(part) for part in re.split(r"[,/]", text) if _NUMBER.fullmatch(part)]
    split = (*parts[:gpus], *(0.0 for _ in range(gpus - len(parts))))
    return split if sum(split) else ()


def _given(extra_args: Sequence[str]) -> dict[str, str]:
    return dict(pairwise((*extra_args, "")))


def _free(gpus: Sequence[Gpu]) -> tuple[float, ...]:
    return tuple(float(max(0, gpu.total_bytes - DEVICE_CONTEXT_BYTES)) for gpu in gpus)


def _split(proportions: Sequence[float], layers: int) -> tuple[int, ...]:
    """Return how many layers each GPU gets, the first layers on the first."""
    whole = sum(proportions)
    if not whole:
        return (*(0 for _ in proportions[1:]), layers)
    points = [part / whole for part in accumulate(proportions)]
    counts = [0] * len(points)
    for layer in range(layers):
        counts[min(bisect_right(points, layer / layers), len(points) - 1)] += 1
    return tuple(counts)


def _filled(at: Callable[[int], MemoryPlan], gpus: Sequence[Gpu], top: int) -> tuple[int, ...]:
    """Return how many layers --fit gives each GPU: from the last layer on, as many as leave its margin."""
    counts = [0] * len(gpus)
    for number in reversed(range(len(gpus))):
        low, high = 0, top - sum(counts)
        while low < high:
            middle = (low + high + 1) // 2
            counts[number] = middle
            holds = _leaves_margin(_shares(at, gpus, counts)[number])
            low, high = (middle, high) if holds else (low, middle - 1)
        counts[number] = low
    return tuple(counts)


def _shares(at: Callable[[int], MemoryPlan], gpus: Sequence[Gpu], counts: Sequence[int]) -> tuple[Share, ...]:
    """Return what each GPU holds. The layers on GPUs are the last ones, so those of one GPU are a difference."""
    total = at(sum(counts))
    on_each = sum(item.device for item in total.items if item.name == "compute buffers")
    context = sum(item.device for item in total.items if item.name == "program")
    first = sum(item.device for item in total.items if item.name in _ON_THE_FIRST)
    spread = sum(item.device for item in total.items if item.name in _SPREAD)
    all_bytes = sum(gpu.total_bytes for gpu in gpus) or 1
    shares: list[Share] = []
    behind = 0
    for number in reversed(range(len(gpus))):
        count, gpu = counts[number], gpus[number]
        device = _layer_bytes(at(behind + count)) - _layer_bytes(at(behind))
        device += on_each if count else 0
        if total.layers_on_device:
            device += context + spread * gpu.total_bytes // all_bytes + (0 if number else first)
        shares.append(Share(gpu, count, device))
        behind += count
    return tuple(reversed(shares))


def _layer_bytes(plan: MemoryPlan) -> int:
    apart = _ON_EACH | _ON_THE_FIRST | _SPREAD
    return sum(item.device for item in plan.items if item.name not in apart)


def _leaves_margin(share: Share) -> bool:
    return share.device <= share.gpu.total_bytes - FIT_MARGIN_BYTES


def _has_margin(shares: Sequence[Share]) -> bool:
    return all(_leaves_margin(share) for share in shares)


def _advice(plan: SeveralGpusPlan, engine: Engine) -> tuple[str, ...]:
    full = [share for share in plan.shares if share.full]
    if full and plan.device <= (plan.device_capacity or 0) and engine.gpu_layers != "auto":
        too_full = f"{full[0].gpu.name} is too full with its {full[0].layers} layers"
        return (f"{too_full}; engine.gpu_layers: auto distributes them as all GPUs together have room",)
    if engine.gpu_layers == "auto" and plan.layers_on_device < plan.layers:
        return (f"{plan.layers_on_device} of {plan.layers} layers fit on the GPUs, the rest is slow", *plan.advice)
    return plan.advice
