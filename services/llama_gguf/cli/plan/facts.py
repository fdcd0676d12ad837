"""What `plan` shows: everything `up` would do on this machine, as one value. Prints nothing, and starts nothing except
llama-server with `--version` and `--list-devices`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_gguf.engine.argv import Host, build_argv
from llama_gguf.engine.auto.machine import usable_cpu
from llama_gguf.engine.binary import Device, devices, find_binary, has_gpu_backend, version
from llama_gguf.engine.cgroup import detect_thread_limit, memory_bytes
from llama_gguf.engine.environment import engine_environment
from llama_gguf.engine.variant_choice import choose, this_machine
from llama_gguf.errors import ConfigError, ExitCode, LaunchError, ModelError
from llama_gguf.models.inventory import ModelFileStatus, all_wanted, expected_files, file_status
from llama_gguf.models.memory.devices import Gpu
from llama_gguf.models.memory.plan import Machine, MemoryPlan, Verdict
from llama_gguf.models.memory.resolve_auto import Choice, layers_choice, unresolved
from llama_gguf.models.memory.together import MemoryNeed, need_of, sets_that_fit, total
from llama_gguf.models.planning.budget import Left, plan_all, read_all, scaled, shared_memory
from llama_gguf.models.planning.weights import Largest, ModelWeights, header_reader
from llama_gguf.models.source import plan_sources, served_names
from llama_gguf.rundir.engine_variant import EngineVariant
from llama_gguf.runtime.programs import Program, build_programs
from llama_gguf.settings import Locations, Settings, locate
from llama_gguf.settings.loading.load import Loaded
from llama_gguf.settings.one_model import OneModel, each_model
from llama_gguf.settings.sections.engine_parts.auto import AUTO


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The llama-server that would run; `problem` is set where it is missing or does not run."""

    binary: Path | None
    version: str
    devices: tuple[Device, ...]
    gpu_backend: bool
    variant: EngineVariant | None = None  # of its CPU code; None if llama-server selects it
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """What `plan` shows of one model."""

    one: OneModel
    locations: Locations  # with the files of this model's engine
    names: tuple[str, ...]
    files: tuple[ModelFileStatus, ...]
    engine: EngineFacts
    argv: tuple[str, ...]
    memory: MemoryPlan | None
    bytes_per_slot: int | None
    largest: Largest | None
    memory_problem: ModelError | ConfigError | None  # why there is no memory plan
    choices: tuple[Choice, ...] = ()  # for settings that are auto


@dataclass(frozen=True, slots=True)
class Together:
    """Several models in the memory that they share. Models whose need is unknown are left out of `needs`."""

    needs: Mapping[str, MemoryNeed]
    always: tuple[str, ...]
    machine: Machine
    sets: tuple[tuple[str, ...], ...]  # that fit at the same time

    @property
    def always_loaded(self) -> MemoryNeed:
        """What the models take that are always loaded."""
        return total(self.needs[name] for name in self.always)

    @property
    def never_fitting(self) -> tuple[str, ...]:
        """The models that do not even fit when, of those on demand, they alone are loaded."""
        fixed = self.always_loaded
        return tuple(
            name
            for name, need in self.needs.items()
            if not (fixed if name in self.always else fixed + need).fits(self.machine)
        )

    @property
    def verdict(self) -> Verdict:
        """Whether those that are always loaded fit, and each of the others beside them or instead of each other."""
        if not self.needs or (self.machine.device_bytes is None and self.machine.host_bytes is None):
            return "unknown"
        return "does not fit" if self.never_fitting else "fits"

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change if they do not fit."""
        if alone := [name for name, need in self.needs.items() if not need.fits(self.machine)]:
            return tuple(
                f"models.{name} alone needs more than there is: first change what is advised there" for name in alone
            )
        if self.always_loaded.fits(self.machine):
            return tuple(
                f"models.{name} never fits beside what is always loaded: reduce it, or load one of those on demand"
                for name in self.never_fitting
            )
        enough = [
            name
            for name in self.always
            if total(self.needs[other] for other in self.always if other != name).fits(self.machine)
        ]
        if not enough:
            return ("models.NAME.load: on_demand for more than one model, or smaller models",)
        smallest = min(enough, key=lambda name: (self.needs[name].device, self.needs[name].host))
        return (f"models.{smallest}.load: on_demand would leave enough for the others that are always loaded",)


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """Everything that `plan` shows."""

    config: Path | None
    settings: Settings
    locations: Locations
    models: tuple[PlannedModel, ...]
    programs: tuple[Program, ...]
    gpus: tuple[Gpu, ...] | None  # planned for; None = unknown
    together: Together | None  # of several models

    @property
    def verdict(self) -> Verdict:
        """Whether all of it fits; "unknown" if that of a model is."""
        verdicts = [model.memory.verdict if model.memory else "unknown" for model in self.models]
        if self.together:
            verdicts.append(self.together.verdict)
        return next((found for found in ("does not fit", "unknown") if found in verdicts), "fits")

    @property
    def exit_code(self) -> ExitCode:
        """Whether what is planned fits, for scripts."""
        if self.verdict == "does not fit":
            return ExitCode.DOES_NOT_FIT
        if problems := [model.memory_problem for model in self.models if model.memory_problem]:
            return problems[0].exit_code
        return ExitCode.OK if self.verdict == "fits" else ExitCode.UNAVAILABLE


def gather(
    loaded: Loaded,
    env: Mapping[str, str],
    *,
    gpus: tuple[Gpu, ...] | None = None,
    ram: int | None = None,
    growth: bool = True,
) -> PlanFacts:
    """Inspect the configuration and this machine; `gpus` and `ram` replace the machine's memory.

    Without `growth` it is not worked out how far context and slots can grow, which takes forty plans of each model.
    """
    settings = loaded.settings
    locations = locate(settings, env)
    if ram is None and not gpus:  # GPUs of another machine, whose main memory is unknown
        ram = memory_bytes()
    models = each_model(settings)
    engines: dict[tuple[object, ...], EngineFacts] = {}
    for one in models:
        if (chosen := _engine_of(one.settings)) not in engines:
            engines[chosen] = inspect_engine(one.settings, env, locations)
    another = bool(gpus)
    if gpus is None:
        gpus = gpus_of(engines[_engine_of(models[0].settings)])
    placed = {one.key: plan_sources(one.settings.model, locations, env, one.place) for one in models}
    weights = read_all(placed, header_reader(env))
    shared = shared_memory(settings, None if gpus is None else sum(gpu.total_bytes for gpu in gpus), ram)
    cpus = {one.key: usable_cpu(engines[_engine_of(one.settings)].variant) for one in models}
    estimates = plan_all(models, weights, Left(shared, scaled(gpus or (), shared)), cpus, growth=growth)

    def facts(one: OneModel) -> PlannedModel:
        engine, sources = engines[_engine_of(one.settings)], placed[one.key]
        host = Host(threads=detect_thread_limit(), gpu_backend=engine.gpu_backend or another)
        own, known = locations.of_engine(one.program), weights[one.key]
        estimated = estimates.get(one.key)
        resolved = estimated.resolved if estimated else unresolved(one.settings.engine)
        settings = one.settings.model_copy(update={"engine": resolved.engine})
        choices = resolved.choices
        if estimated and estimated.plan.device_capacity and resolved.engine.gpu_layers == AUTO:
            choices = (layers_choice(estimated.plan), *choices)
        return PlannedModel(
            one=dataclasses.replace(one, settings=settings),
            locations=own,
            names=served_names(one.settings.model),
            files=tuple(file_status(wanted) for wanted in all_wanted(sources)),
            engine=engine,
            argv=tuple(build_argv(settings, own, expected_files(one.settings.model, sources), host)),
            memory=estimated.plan if estimated else None,
            bytes_per_slot=estimated.per_slot if estimated else None,
            largest=estimated.largest if estimated else None,
            memory_problem=None if isinstance(known, ModelWeights) else known,
            choices=choices,
        )

    planned = tuple(facts(one) for one in models)
    sizes = {one.program: found.size for one in models if isinstance(found := weights[one.key], ModelWeights)}
    return PlanFacts(
        config=loaded.file,
        settings=settings,
        locations=locations,
        models=planned,
        programs=build_programs(settings, Path(sys.executable).name, sizes),
        gpus=gpus,
        together=_together(planned, shared) if settings.models else None,
    )


def _together(models: Sequence[PlannedModel], machine: Machine) -> Together:
    needs = {model.one.key: need_of(model.memory) for model in models if model.memory}
    always = tuple(model.one.key for model in models if model.memory and not model.one.on_demand)
    return Together(needs, always, machine, sets_that_fit(needs, machine, always))


def _engine_of(settings: Settings) -> tuple[object, ...]:
    """Return what decides which llama-server runs: models with the same share what it reports."""
    return settings.engine.binary, settings.engine.cpu_variant


def inspect_engine(settings: Settings, env: Mapping[str, str], locations: Locations) -> EngineFacts:
    """Find llama-server and query its version and devices."""
    binary = None
    try:
        binary = find_binary(settings, env)
        variant = choose(settings, binary, this_machine(), locations.cpu_variants_file)
        environment = engine_environment(env, locations.run.root, variant.variant if variant else None)
        gpu_backend = has_gpu_backend(binary)
        return EngineFacts(binary, version(binary, environment), devices(binary, environment), gpu_backend, variant)
    except LaunchError as error:
        return EngineFacts(binary, "", (), gpu_backend=True, problem=f"{error.message}; {error.hint}".rstrip("; "))


def gpus_of(engine: EngineFacts) -> tuple[Gpu, ...] | None:
    """Return the GPUs of this machine, None without a llama-server to query."""
    return None if engine.problem else tuple(Gpu(device.name, device.total_bytes) for device in engine.devices)
