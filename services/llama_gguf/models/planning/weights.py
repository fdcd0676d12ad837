"""The memory that one model needs, from the headers of its files: those on disk, and those of files on a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.facts import has_quantisable_cache
from llama_gguf.models.gguf.header import Header, Tensor, read_header
from llama_gguf.models.inventory import file_status
from llama_gguf.models.memory.devices import Gpu
from llama_gguf.models.memory.estimate import Weights
from llama_gguf.models.memory.plan import Machine, MemoryPlan, plan_memory
from llama_gguf.models.memory.resolve_auto import ModelLimits, Resolved, resolve_auto
from llama_gguf.models.memory.several_gpus import plan_on_gpus
from llama_gguf.models.memory.together import largest
from llama_gguf.models.source import Named, OnDisk, Sources, Wanted, split_names
from llama_gguf.settings.checks.model_facts import longest_context
from llama_gguf.settings.sections.engine_parts.auto import automatic, given

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

HeaderReader = Callable[[Wanted], Sequence[Header]]
"""Returns the headers of all parts of a file."""


_CACHES = ("KV cache", "recurrent state")
_MAX_SLOTS = 256
_MAX_CONTEXT = 1 << 20  # where the file does not say what the model was trained with


@dataclass(frozen=True, slots=True)
class Largest:
    """How far one setting can grow while the other stays as it is."""

    context_per_slot: int
    slots: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory plan of one model, and how far its context and slots can grow if it fits."""

    plan: MemoryPlan
    largest: Largest | None
    per_slot: int  # bytes that each slot takes: its keys and values, and its recurrent state
    resolved: Resolved  # the settings that it is planned with


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """What the headers of one model's files say about its memory."""

    model: Weights
    mmproj: tuple[Tensor, ...]
    draft: Weights | None
    adapters: tuple[Tensor, ...]
    has_quantisable_cache: bool = True

    @property
    def size(self) -> int:
        """Bytes of the model's own weights."""
        return sum(tensor.byte_size for tensor in self.model.tensors)

    def estimate(self, engine: Engine, machine: Machine, gpus: Sequence[Gpu], *, growth: bool) -> Estimate:
        """Return the plan for `machine`, whose GPUs are `gpus` if they are several."""
        resolved = self.resolve(engine, machine, gpus)
        plan = self._planner(machine, gpus)
        found = plan(resolved.engine)
        caches = sum(item.device + item.host for item in found.items if item.name in _CACHES)
        grown = _largest(plan, resolved.engine, self.model.architecture.trained_context) if growth else None
        return Estimate(found, grown, caches // given(resolved.engine.slots), resolved)

    def resolve(self, engine: Engine, machine: Machine, gpus: Sequence[Gpu]) -> Resolved:
        """Return the settings with a value for each that is `auto`, for a little less memory than there is."""
        if not automatic(engine):
            return Resolved(engine)
        trained = self.model.architecture.trained_context
        limits = ModelLimits(longest_context(engine, trained), self.draft is not None, self.has_quantisable_cache)
        device, host = machine.device_bytes, machine.host_bytes
        less = replace(machine, device_bytes=device and _certain(device), host_bytes=host and _certain(host))
        return resolve_auto(
            engine, limits, self._planner(less, [Gpu(gpu.name, _certain(gpu.total_bytes)) for gpu in gpus])
        )

    def _planner(self, machine: Machine, gpus: Sequence[Gpu]) -> Callable[[Engine], MemoryPlan]:
        def on_one(engine: Engine) -> MemoryPlan:
            return plan_memory(
                self.model, engine, machine, mmproj=self.mmproj, draft=self.draft, adapters=self.adapters
            )

        def plan(engine: Engine) -> MemoryPlan:
            return plan_on_gpus(on_one, engine, gpus) if len(gpus) > 1 else on_one(engine)

        return plan


def _certain(size: int) -> int:
    return max(1, size * 95 // 100)  # plans are within 5 % of what llama-server takes


def _largest(replan: Callable[[Engine], MemoryPlan], engine: Engine, trained_context: int) -> Largest | None:
    """Return how far the settings can grow; None where nothing fits, or where that is not known."""
    now = replan(engine)
    if now.verdict != "fits":
        return None
    context = largest(replan, engine, "context_per_slot", trained_context or _MAX_CONTEXT)
    fixed = engine.model_copy(update={"context_per_slot": now.context_per_slot})  # else more slots get less each
    slots = largest(replan, fixed, "slots", _MAX_SLOTS)
    return Largest(max(context, now.context_per_slot), max(slots, given(engine.slots)))


def read_weights(sources: Sources, headers: HeaderReader) -> ModelWeights:
    """Read all headers. Raises ModelError, and ConfigError for a token that cannot be used."""

    def weights(read: Sequence[Header]) -> Weights:
        return Weights(_tensors(read), read_architecture(read[0]))

    model = headers(sources.model)
    return ModelWeights(
        weights(model),
        _tensors(headers(sources.mmproj)) if sources.mmproj else (),
        weights(headers(sources.draft)) if sources.draft else None,
        tuple(tensor for wanted in sources.lora for tensor in _tensors(headers(wanted))),
        has_quantisable_cache(model[0]),
    )


def header_reader(env: Mapping[str, str]) -> HeaderReader:
    """Return what reads the headers of all parts of a file: from the disk, else from its server."""

    def read(wanted: Wanted) -> tuple[Header, ...]:
        first = file_status(wanted).path
        parts = [first.with_name(name) for name in split_names(first.name)]
        missing = next((part for part in parts if not part.is_file()), None)
        if missing is None:
            return tuple(read_header(part) for part in parts)
        if isinstance(wanted.origin, OnDisk | Named):
            raise ModelError(f"{wanted.setting}: {missing} does not exist", code="model_not_found")
        from llama_gguf.models.remote.header_cache import HeaderCache, default_directory  # noqa: PLC0415 - as below
        from llama_gguf.models.remote.headers import read_remote  # noqa: PLC0415 - takes 0.2 s

        return tuple(remote.header for remote in read_remote(wanted, env, HeaderCache(default_directory(env))))

    return read


def _tensors(headers: Sequence[Header]) -> tuple[Tensor, ...]:
    return tuple(tensor for header in headers for tensor in header.tensors)
