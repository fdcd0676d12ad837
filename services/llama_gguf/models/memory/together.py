"""Several models in one box: what each needs, which of them fit at the same time, and how much one may grow. Pure.

Every model is a process of its own, so needs add up: each has its own weights, caches and CUDA context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llama_gguf.models.memory.estimate import CELLS
from llama_gguf.models.memory.plan import Machine, MemoryPlan

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

_MAX_SETS = 64  # beyond that, nobody reads them
_MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a loaded model takes, on GPUs and of main memory."""

    device: int = 0
    host: int = 0

    def __add__(self, other: MemoryNeed) -> MemoryNeed:
        return MemoryNeed(self.device + other.device, self.host + other.host)

    def fits(self, machine: Machine) -> bool:
        """Return whether a machine has that much; what is not known of it counts as enough."""
        return self.missing(machine) == MemoryNeed()

    def missing(self, machine: Machine) -> MemoryNeed:
        """Return what the machine has too little of."""
        device, host = machine.device_bytes, machine.host_bytes
        return MemoryNeed(
            0 if device is None else max(0, self.device - device), 0 if host is None else max(0, self.host - host)
        )


def need_of(plan: MemoryPlan) -> MemoryNeed:
    """Return what a planned model takes; mapped weights count, because a model without them in memory crawls."""
    return MemoryNeed(plan.device, plan.host)


def total(needs: Iterable[MemoryNeed]) -> MemoryNeed:
    """Return the sum of what several models take."""
    return sum(needs, MemoryNeed())


def sets_that_fit(
    needs: Mapping[str, MemoryNeed], machine: Machine, always: Iterable[str] = ()
) -> tuple[tuple[str, ...], ...]:
    """Return the largest sets of models that fit at the same time: none of them is part of another one.

    Each holds the models that are `always` loaded; none is returned if those alone do not fit. Most models first; of
    very many sets, only some of the largest.
    """
    base = tuple(name for name in needs if name in set(always))
    others = sorted((name for name in needs if name not in base), key=lambda name: (needs[name].device, name))
    start = total(needs[name] for name in base)
    if not start.fits(machine):
        return ()
    found: list[frozenset[str]] = []
    steps = 0

    def extend(index: int, chosen: tuple[str, ...], taken: MemoryNeed) -> None:
        nonlocal steps
        steps += 1
        if steps > _MAX_STEPS or len(found) >= _MAX_SETS:
            return
        if index == len(others):
            candidate = frozenset(chosen)
            if not any(candidate <= known for known in found):
                found.append(candidate)
            return
        more = taken + needs[others[index]]
        if more.fits(machine):
            extend(index + 1, (*chosen, others[index]), more)
        extend(index + 1, chosen, taken)

    extend(0, base, start)
    whole = [candidate for candidate in found if not any(candidate < other for other in found)]
    order = list(needs)
    named = (tuple(name for name in order if name in candidate) for candidate in whole)
    return tuple(sorted(named, key=lambda names: (-len(names), [order.index(name) for name in names])))


def largest(
    plan_of: Callable[[Engine], MemoryPlan], engine: Engine, setting: Literal["slots", "context_per_slot"], most: int
) -> int:
    """Return the largest value up to `most` of one setting with which a model fits, 0 if none does.

    It has to fit as well as with the smallest value: with as many layers on the GPU.
    """
    step = 1 if setting == "slots" else CELLS

    def tried(count: int) -> MemoryPlan:
        return plan_of(engine.model_copy(update={setting: count * step}))

    low, high = 0, most // step
    layers = tried(1).layers_on_device
    while low < high:
        middle = (low + high + 1) // 2
        plan = tried(middle)
        fits = plan.verdict != "does not fit" and plan.layers_on_device >= layers
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * step
