"""Several models in one machine: what those that are loaded before it leave to a model. Pure, but for the headers.

The memory plan of the command and of each engine's program is this one, so both choose the same for `auto`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gguf.cpu import Cpu
from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.models.memory.devices import MIB, Gpu
from llama_gguf.models.memory.plan import Machine, MemoryPlan
from llama_gguf.models.memory.resolve_auto import unresolved
from llama_gguf.models.memory.several_gpus import SeveralGpusPlan, chosen_gpus
from llama_gguf.models.planning.weights import Estimate, HeaderReader, ModelWeights, read_weights
from llama_gguf.models.source import Sources
from llama_gguf.settings import Settings
from llama_gguf.settings.one_model import OneModel
from llama_gguf.settings.sections.engine_parts.auto import automatic

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

Weighed = Mapping[str, ModelWeights | ModelError | ConfigError]
"""What the headers of each model say, or why they are not known."""


@dataclass(frozen=True, slots=True)
class Left:
    """The memory that models leave to those after them: all of it, and that of each GPU."""

    machine: Machine
    gpus: tuple[Gpu, ...]

    def of_gpus(self, numbers: Sequence[int]) -> Left:
        """Return the same with some of the GPUs only."""
        if len(numbers) == len(self.gpus):
            return Left(self.machine, tuple(self.gpus[number] for number in numbers))
        gpus = tuple(self.gpus[number] for number in numbers)
        device = max(1, sum(gpu.total_bytes for gpu in gpus))
        return Left(dataclasses.replace(self.machine, device_bytes=device), gpus)

    def at_most(self, devices: Sequence[int], host: int | None) -> Left:
        """Return the same where so many bytes are free on each GPU, and of main memory."""
        gpus = tuple(Gpu(gpu.name, min(gpu.total_bytes, free)) for gpu, free in zip(self.gpus, devices, strict=True))
        device, sizes = self.machine.device_bytes, (self.machine.host_bytes, host)
        if device:
            device = max(1, min(device, sum(devices)))
        return Left(Machine(device, min((size for size in sizes if size is not None), default=None)), gpus)

    def beside(self, plan: MemoryPlan, numbers: Sequence[int]) -> Left:
        """Return what a model on these GPUs leaves. A GPU that is full is still one: at least a byte of it is left."""
        device, host, gpus = self.machine.device_bytes, self.machine.host_bytes, list(self.gpus)
        taken = [share.device for share in plan.shares] if isinstance(plan, SeveralGpusPlan) else [plan.device]
        for number, size in zip(numbers, taken, strict=False):
            gpus[number] = Gpu(gpus[number].name, max(0, gpus[number].total_bytes - size))
        left = Machine(
            max(1, device - plan.device) if device else device, None if host is None else max(0, host - plan.host)
        )
        return Left(left, tuple(gpus))


def scaled(gpus: Sequence[Gpu], machine: Machine) -> tuple[Gpu, ...]:
    """Return the GPUs with their part of the budget, if it is less than what they have."""
    total_bytes = sum(gpu.total_bytes for gpu in gpus)
    if machine.device_bytes is None or machine.device_bytes >= total_bytes:
        return tuple(gpus)
    return tuple(Gpu(gpu.name, gpu.total_bytes * machine.device_bytes // total_bytes) for gpu in gpus)


def plan_all(
    models: Sequence[OneModel], weights: Weighed, left: Left, cpus: Mapping[str, Cpu], *, growth: bool
) -> dict[str, Estimate]:
    """Plan each model for the memory that those before it leave: llama-server puts as many layers on GPUs as are free.

    Those that are always loaded come first; of them, those whose settings are all given, the largest first.
    """
    estimates: dict[str, Estimate] = {}
    for planned, own in _in_order(models, weights, left, cpus):
        machine = dataclasses.replace(own.machine, cpu=cpus[planned.one.key])
        engine = planned.one.settings.engine
        estimates[planned.one.key] = planned.weights.estimate(engine, machine, own.gpus, growth=growth)
    return estimates


def left_for(
    key: str, models: Sequence[OneModel], weights: Weighed, left: Left, cpus: Mapping[str, Cpu]
) -> Left | None:
    """Return the memory that the others leave to one of the models, on the GPUs that it uses; None if it is unknown."""
    return next((own for planned, own in _in_order(models, weights, left, cpus) if planned.one.key == key), None)


@dataclass(frozen=True, slots=True)
class _Planned:
    """One model to be planned."""

    one: OneModel
    weights: ModelWeights
    cpu: Cpu

    @property
    def is_open(self) -> bool:
        """Whether settings are left to the plan, so that it can take all the memory there is."""
        return bool(automatic(self.one.settings.engine))

    def numbers(self, left: Left) -> tuple[int, ...]:
        """Return the GPUs that it uses."""
        return chosen_gpus(self.one.settings.engine, len(left.gpus))

    def plan(self, left: Left, engine: Engine) -> MemoryPlan:
        """Return its plan for what is left."""
        own = left.of_gpus(self.numbers(left))
        machine = dataclasses.replace(own.machine, cpu=self.cpu)
        return self.weights.estimate(engine, machine, own.gpus, growth=False).plan

    def least(self, left: Left) -> MemoryPlan:
        """Return its plan with the least for everything that is left open."""
        return self.plan(left, unresolved(self.one.settings.engine).engine)


def _in_order(
    models: Sequence[OneModel], weights: Weighed, left: Left, cpus: Mapping[str, Cpu]
) -> Iterator[tuple[_Planned, Left]]:
    """Yield each model with the memory that those before it leave, on the GPUs that it uses.

    One that could take all there is leaves the least that those after it need: of those that are loaded on demand,
    which take turns, the largest.
    """
    found = [
        _Planned(one, known, cpus[one.key]) for one in models if isinstance(known := weights[one.key], ModelWeights)
    ]
    found.sort(key=lambda each: (each.one.on_demand, each.is_open, -each.weights.size))
    for index, each in enumerate(found):
        own = left
        if each.is_open and not each.one.on_demand:
            own = _beside_later(left, found[index + 1 :])
        yield each, own.of_gpus(each.numbers(own))
        if not each.one.on_demand:
            left = left.beside(each.plan(own, each.one.settings.engine), each.numbers(left))


def _beside_later(left: Left, later: Sequence[_Planned]) -> Left:
    for each in later:
        if not each.one.on_demand:
            left = left.beside(each.least(left), each.numbers(left))
    turns = [(each.least(left), each.numbers(left)) for each in later if each.one.on_demand]
    if turns:
        left = left.beside(*max(turns, key=lambda turn: (turn[0].device, turn[0].host)))
    return left


def shared_memory(settings: Settings, device: int | None, host: int | None) -> Machine:
    """Return the memory to plan for: the machine's; of several models the part of it that `memory` gives them."""
    if not settings.models:
        return Machine(device, host)

    def at_most(given: object, there: int | None) -> int | None:
        if not isinstance(given, int):
            return there
        return given * MIB if there is None else min(given * MIB, there)

    return Machine(at_most(settings.memory.device_mib, device), at_most(settings.memory.host_mib, host))


def read_all(placed: Mapping[str, Sources], read: HeaderReader) -> Weighed:
    """Return the weights of each model, or why they are not known: what is wrong with one stops no other."""
    weights: dict[str, ModelWeights | ModelError | ConfigError] = {}
    for name, sources in placed.items():
        try:
            weights[name] = read_weights(sources, read)
        except (ModelError, ConfigError) as error:
            weights[name] = error
    return weights
