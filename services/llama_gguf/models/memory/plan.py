"""How much memory a model will need, before it is loaded: the plan, the verdict and what to reduce.

Pure: headers and settings in, a plan out. `assumptions` says what was not checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from llama_gguf.cpu import Cpu
from llama_gguf.models.gguf.header import Tensor
from llama_gguf.models.gguf.known_architectures import CACHE_UNKNOWN
from llama_gguf.models.memory.estimate import (
    CELLS,
    DEVICE_CONTEXT_BYTES,
    MIB,
    Inputs,
    Item,
    Weights,
    cells_per_slot,
    count_items,
    host_experts,
    maps_weights,
    predicts_more,
)
from llama_gguf.models.memory.repack import NO_CPU, repacking_disabled
from llama_gguf.models.memory.work import NOT_FOLLOWED
from llama_gguf.settings.sections.engine_parts.auto import given

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

__all__ = ["Item", "Machine", "MemoryPlan", "Verdict", "Weights", "plan_memory"]

Verdict = Literal["fits", "does not fit", "unknown"]

FIT_MARGIN_BYTES = 1024 * MIB  # what llama-server's --fit leaves free


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How much memory a model will need where, and whether it fits. Bytes; a capacity of None is unknown."""

    items: tuple[Item, ...]
    layers: int  # repeating layers and the output layer
    layers_on_device: int
    context_per_slot: int
    device_capacity: int | None
    host_capacity: int | None
    advice: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # what takes memory too, but is not counted

    @property
    def device(self) -> int:
        """Bytes on GPUs."""
        return sum(item.device for item in self.items)

    @property
    def host(self) -> int:
        """Bytes of main memory."""
        return sum(item.host for item in self.items)

    @property
    def mapped(self) -> int:
        """Bytes of main memory that the kernel can reclaim and read again from the file."""
        return sum(item.mapped for item in self.items)

    @property
    def repacked(self) -> int:
        """Bytes of the model's weights that are repacked for the CPU, into memory that cannot be reclaimed."""
        return sum(item.host for item in self.items if item.name == "repacked weights")

    @property
    def verdict(self) -> Verdict:
        """Whether the model fits into the memory; never "fits" if there is more that is not counted."""
        if self.device_capacity is None and self.host_capacity is None:
            return "unknown"
        device_full = self.device_capacity is not None and self.device > self.device_capacity
        host_full = self.host_capacity is not None and self.host > self.host_capacity
        if device_full or host_full:
            return "does not fit"
        return "unknown" if self.unknown else "fits"


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine: bytes of all GPUs together (0 = no GPU, None = unknown) and of main memory; the CPU."""

    device_bytes: int | None
    host_bytes: int | None
    cpu: Cpu = NO_CPU


def plan_memory(
    model: Weights,
    engine: Engine,
    machine: Machine,
    *,
    mmproj: Sequence[Tensor] = (),
    draft: Weights | None = None,
    adapters: Sequence[Tensor] = (),
) -> MemoryPlan:
    """Return how much memory serving `model` with `engine` needs on `machine`."""
    inputs = Inputs(
        model,
        engine,
        tuple(mmproj),
        draft,
        tuple(adapters),
        host_experts(engine),
        _repacking_cpu(engine, machine),
        maps_weights(engine),
        predicts_more(engine),
    )
    top = len(model.architecture.layers) + 1
    layers = _layers_on_device(inputs, machine, top)
    plan = MemoryPlan(
        items=count_items(inputs, layers),
        layers=top,
        layers_on_device=layers,
        context_per_slot=cells_per_slot(engine, model.architecture),
        device_capacity=machine.device_bytes,
        host_capacity=machine.host_bytes,
        unknown=_unknown(inputs),
    )
    return replace(plan, advice=_advice(inputs, plan), assumptions=_assumptions(inputs, machine, plan))


def _repacking_cpu(engine: Engine, machine: Machine) -> Cpu:
    """Return the CPU for which weights are repacked, NO_CPU if they are not.

    With a GPU, llama.cpp prefers memory that the GPU can read, unless --no-host is given.
    """
    if repacking_disabled(engine.extra_args) or (machine.device_bytes != 0 and "--no-host" not in engine.extra_args):
        return NO_CPU
    return machine.cpu


def _layers_on_device(inputs: Inputs, machine: Machine, top: int) -> int:
    wanted = inputs.engine.gpu_layers
    if machine.device_bytes == 0:
        return 0
    if isinstance(wanted, int):
        return min(wanted, top)
    fits = inputs.engine.fit and not (inputs.host_experts or inputs.engine.tensor_split)  # these turn --fit off
    if wanted == "all" or machine.device_bytes is None or not fits:
        return top
    room = machine.device_bytes - FIT_MARGIN_BYTES
    for layers in range(top, 0, -1):
        if _device_bytes(inputs, layers) <= room:
            return layers
    return 0


def _device_bytes(inputs: Inputs, layers: int) -> int:
    return sum(item.device for item in count_items(inputs, layers))


def _all_bytes(inputs: Inputs, layers: int) -> int:
    return sum(item.device + item.host for item in count_items(inputs, layers))


def _advice(inputs: Inputs, plan: MemoryPlan) -> tuple[str, ...]:
    """Say what to change if the model does not fit, first what costs least; or how much GPU memory is missing."""
    advice = []
    if plan.verdict == "does not fit":
        smaller = _with_smaller_cache(inputs)
        if smaller:
            advice.append(f"{_SMALLER_CACHE} would {_saving(inputs, plan, smaller)}")
        if slots := _largest(inputs, plan, "slots", given(inputs.engine.slots)):
            advice.append(f"engine.slots: {slots} would fit")
        context = _largest(inputs, plan, "context_per_slot", plan.context_per_slot)
        if context:
            advice.append(f"engine.context_per_slot: {context} would fit")
        elif not slots and smaller and (context := _largest_of_one_slot(smaller, plan)):
            advice.append(f"{_SMALLER_CACHE} with engine.slots: 1 and engine.context_per_slot: {context} would fit")
        if layers := _max_layers(inputs, plan):
            advice.append(f"engine.gpu_layers: {layers} would fit, more slowly (auto finds it automatically)")
        if plan.repacked and plan.host_capacity is not None and plan.host > plan.host_capacity:
            advice.append(
                f"engine.extra_args: [--no-repack] would leave {plan.repacked / MIB:.0f} MiB of weights memory-mapped, "
                "which the kernel reclaims instead of swapping; slower"
            )
        if not slots and not context:
            advice.append("use a smaller model or a smaller quantisation of it")
    elif plan.device_capacity and plan.layers_on_device < plan.layers and inputs.engine.gpu_layers == "auto":
        missing = _device_bytes(inputs, plan.layers) + FIT_MARGIN_BYTES - plan.device_capacity
        advice.append(
            f"{plan.layers_on_device} of {plan.layers} layers fit on the GPU, the rest is slow; "
            f"{missing / MIB:.0f} MiB more would fit all"
        )
    return tuple(advice)


_SMALLER_CACHE = "engine.cache_type_k and cache_type_v: q8_0"


def _with_smaller_cache(inputs: Inputs) -> Inputs | None:
    """Return the inputs with a quantised cache, which loses next to nothing; None if it is already smaller than f16.

    A quantised V cache requires flash attention.
    """
    engine = inputs.engine
    if (engine.cache_type_k, engine.cache_type_v) != ("f16", "f16") or engine.flash_attention == "off":
        return None
    return _changed(inputs, cache_type_k="q8_0", cache_type_v="q8_0")


def _saving(inputs: Inputs, plan: MemoryPlan, smaller: Inputs) -> str:
    if _fits(smaller, plan):
        return "fit"
    before, after = (_all_bytes(these, plan.layers_on_device) for these in (inputs, smaller))
    return f"save {(before - after) / MIB:.0f} MiB"


def _changed(inputs: Inputs, **engine: object) -> Inputs:
    return replace(inputs, engine=inputs.engine.model_copy(update=engine))


def _fits(inputs: Inputs, plan: MemoryPlan) -> bool:
    """Return whether other inputs fit on the machine of `plan`, with its layers on the GPU."""
    items = count_items(inputs, plan.layers_on_device)
    device, host = sum(item.device for item in items), sum(item.host for item in items)
    return device <= (plan.device_capacity or device) and host <= (plan.host_capacity or host)


def _largest(inputs: Inputs, plan: MemoryPlan, field: str, current: int) -> int:
    """Return the largest value of an engine setting below `current` that fits, 0 if none does."""
    step = 1 if field == "slots" else CELLS
    low, high = 0, (current - 1) // step
    while low < high:
        middle = (low + high + 1) // 2
        fits = _fits(_changed(inputs, **{field: middle * step}), plan)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * step


def _largest_of_one_slot(inputs: Inputs, plan: MemoryPlan) -> int:
    return _largest(_changed(inputs, slots=1), plan, "context_per_slot", plan.context_per_slot + 1)


def _max_layers(inputs: Inputs, plan: MemoryPlan) -> int:
    """Return how many layers fit on the GPU if not all of the planned ones do, else 0."""
    capacity = plan.device_capacity or 0
    if plan.device <= capacity:
        return 0
    fewer = range(plan.layers_on_device - 1, 0, -1)
    return next((layers for layers in fewer if _device_bytes(inputs, layers) <= capacity), 0)


def _unknown(inputs: Inputs) -> tuple[str, ...]:
    """Say what is not counted, rather than count it as nothing."""
    unknown = []
    for model, role in ((inputs.model, "the model"), (inputs.draft, "the draft model")):
        if model and model.architecture.name in CACHE_UNKNOWN:
            unknown.append(f"{role}'s architecture, {model.architecture.name}, has caches that are not counted here")
        elif model and model.architecture.name in NOT_FOLLOWED:
            unknown.append(f"{role}'s architecture, {model.architecture.name}, may need larger compute buffers")
        if model and (names := sorted({tensor.type_name for tensor in model.tensors if tensor.byte_size == 0})):
            unknown.append(f"{role} has tensors of {', '.join(names)}, whose size is not known here")
    return tuple(unknown)


_SUPPORTED_ARGS = frozenset(
    [
        "--cpu-moe",
        "-cmoe",
        "--n-cpu-moe",
        "-ncmoe",
        "--repack",
        "--no-repack",
        "-nr",
        "--no-host",
        "--load-mode",
        "-lm",
        "--spec-type",
    ]
)  # of engine.extra_args


def _assumptions(inputs: Inputs, machine: Machine, plan: MemoryPlan) -> tuple[str, ...]:
    assumptions = (
        ["weights in main memory are memory-mapped and count in full"]
        if inputs.mapped
        else ["weights in main memory are read or locked into memory that the kernel cannot reclaim"]
    )
    if plan.repacked:
        assumptions.append(
            f"{plan.repacked / MIB:.0f} MiB of weights are repacked for this machine's CPU, into memory that the "
            "kernel cannot reclaim; while they are loaded, the file's pages use free memory too"
        )
    if plan.layers_on_device:
        assumptions.append(
            f"CUDA itself uses {DEVICE_CONTEXT_BYTES // MIB} MiB of one GPU, which supports flash attention"
        )
    if machine.device_bytes is None and inputs.engine.gpu_layers != 0:
        assumptions.append("no GPU was checked: all layers are assumed to fit")
    if inputs.mmproj:
        assumptions.append("the projector's compute buffers are as large as its weights; large images need more")
    ignored = [item for item in inputs.engine.extra_args if item.startswith("-") and item not in _SUPPORTED_ARGS]
    if ignored:
        assumptions.append(f"these extra_args are ignored here: {' '.join(ignored)}")
    return tuple(assumptions)
