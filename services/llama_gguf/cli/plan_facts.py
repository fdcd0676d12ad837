"""What `plan` shows: everything `up` would do on this machine, as one value. Prints nothing, and starts nothing except
llama-server with `--version` and `--list-devices`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_gguf.cpu import Cpu, read_cpu
from llama_gguf.engine.argv import Host, build_argv
from llama_gguf.engine.binary import Device, devices, find_binary, has_gpu_backend, version
from llama_gguf.engine.cgroup import detect_thread_limit, memory_bytes
from llama_gguf.engine.cpu_variants import usable_flags
from llama_gguf.engine.environment import engine_environment
from llama_gguf.engine.variant_choice import choose, this_machine
from llama_gguf.errors import ConfigError, ExitCode, LaunchError, ModelError
from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import Header, Tensor, read_header
from llama_gguf.models.inventory import ModelFileStatus, all_wanted, expected_files, file_status
from llama_gguf.models.memory.devices import Gpu
from llama_gguf.models.memory.estimate import Weights
from llama_gguf.models.memory.plan import Machine, MemoryPlan, plan_memory
from llama_gguf.models.memory.repack import NO_CPU
from llama_gguf.models.source import Named, OnDisk, Sources, Wanted, plan_sources, served_names, split_names
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.engine_variant import EngineVariant
from llama_gguf.runtime.programs import Program, build_programs
from llama_gguf.settings import Locations, Settings, locate
from llama_gguf.settings.loading.load import Loaded

HeaderReader = Callable[[Wanted], Sequence[Header]]
"""Returns the headers of all parts of a file."""


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
class PlanFacts:
    """Everything that `plan` shows."""

    config: Path | None
    settings: Settings
    locations: Locations
    names: tuple[str, ...]
    files: tuple[ModelFileStatus, ...]
    engine: EngineFacts
    argv: tuple[str, ...]
    programs: tuple[Program, ...]
    gpus: tuple[Gpu, ...] | None  # planned for; None = unknown
    memory: MemoryPlan | None
    memory_problem: ModelError | ConfigError | None  # why there is no memory plan

    @property
    def exit_code(self) -> ExitCode:
        """Whether what is planned fits, for scripts."""
        if self.memory_problem:
            return self.memory_problem.exit_code
        return ExitCode.DOES_NOT_FIT if self.memory and self.memory.verdict == "does not fit" else ExitCode.OK


def gather(
    loaded: Loaded, env: Mapping[str, str], *, gpus: tuple[Gpu, ...] | None = None, ram: int | None = None
) -> PlanFacts:
    """Inspect the configuration and this machine; `gpus` and `ram` replace the machine's memory."""
    settings = loaded.settings
    locations = locate(settings, env)
    sources = plan_sources(settings.model, locations, env)
    engine = inspect_engine(settings, env, locations)
    host = Host(threads=detect_thread_limit(), gpu_backend=engine.gpu_backend or bool(gpus))
    found = gpus_of(engine) if gpus is None else gpus
    if ram is None and not gpus:  # GPUs of another machine, whose main memory is unknown
        ram = memory_bytes()
    argv = build_argv(settings, locations, expected_files(settings.model, sources), host)
    files = tuple(file_status(wanted) for wanted in all_wanted(sources))
    memory: MemoryPlan | None = None
    problem: ModelError | ConfigError | None = None
    try:
        memory = estimate(settings, sources, machine(engine, found, ram), header_reader(env))
    except (ModelError, ConfigError) as error:
        problem = error
    return PlanFacts(
        config=loaded.file,
        settings=settings,
        locations=locations,
        names=served_names(settings.model),
        files=files,
        engine=engine,
        argv=tuple(argv),
        programs=build_programs(settings, Path(sys.executable).name),
        gpus=found,
        memory=memory,
        memory_problem=problem,
    )


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


def machine(engine: EngineFacts, gpus: tuple[Gpu, ...] | None, ram: int | None) -> Machine:
    """Return the machine to plan for. The CPU is this machine's, even if the memory is another machine's."""
    device_bytes = None if gpus is None else sum(gpu.total_bytes for gpu in gpus)
    return Machine(device_bytes, ram, usable_cpu(engine.variant))


def usable_cpu(variant: EngineVariant | None) -> Cpu:
    """Return the CPU flags that the engine's CPU code uses on this machine; none if the kernel does not report them."""
    here = this_machine()
    cpu = read_cpu(here.cpuinfo) or NO_CPU
    if variant is None or variant.variant not in here.table:
        return cpu
    return dataclasses.replace(cpu, flags=usable_flags(here.table, variant.variant, cpu.flags))


def estimate(settings: Settings, sources: Sources, machine: Machine, headers: HeaderReader) -> MemoryPlan:
    """Return the memory plan. Raises ModelError if the header of a file cannot be read."""

    def weights(wanted: Wanted) -> Weights:
        read = headers(wanted)
        return Weights(_tensors(read), read_architecture(read[0]))

    return plan_memory(
        weights(sources.model),
        settings.engine,
        machine,
        mmproj=_tensors(headers(sources.mmproj)) if sources.mmproj else (),
        draft=weights(sources.draft) if sources.draft else None,
        adapters=[tensor for wanted in sources.lora for tensor in _tensors(headers(wanted))],
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


def as_data(facts: PlanFacts) -> dict[str, Any]:
    """Return the facts as JSON values; the structure is stable."""
    locations, run = facts.locations, facts.locations.run
    return {
        "config": str(facts.config) if facts.config else None,
        "data_dir": {"path": str(locations.data_dir), "reason": locations.data_dir_reason},
        "run_dir": {"path": str(run.root), "reason": locations.run_dir_reason},
        "paths": {
            name: str(getattr(locations, name))
            for name in ("models_dir", "logs_dir", "keys_file", "audit_file", "usage_file")
        },
        "model": {
            "names": list(facts.names),
            "files": [
                {
                    "setting": file.wanted.setting,
                    "source": file.wanted.description,
                    "path": str(file.path),
                    "present": file.present,
                    "bytes": file.bytes_on_disk,
                }
                for file in facts.files
            ],
        },
        "engine": {
            "binary": str(facts.engine.binary) if facts.engine.binary else None,
            "version": facts.engine.version,
            "cpu_variant": engine_variant.summary(facts.engine.variant),
            "problem": facts.engine.problem or None,
            "devices": [dataclasses.asdict(device) for device in facts.engine.devices],
            "argv": list(facts.argv),
        },
        "listen": {
            "gateway": {"host": facts.settings.gateway.host, "port": facts.settings.gateway.port},
            "health": {"host": facts.settings.health.host, "port": facts.settings.health.port},
        },
        "sockets": {"engine": str(run.engine_socket), "supervisord": str(run.supervisord_socket)},
        "programs": [{"name": program.name, "argv": list(program.argv)} for program in facts.programs],
        "gpus": None if facts.gpus is None else [dataclasses.asdict(gpu) for gpu in facts.gpus],
        "memory": memory_as_data(facts.memory) if facts.memory else None,
        "memory_problem": facts.memory_problem.message if facts.memory_problem else None,
    }


def memory_as_data(plan: MemoryPlan) -> dict[str, Any]:
    """Return a memory plan as JSON values, sizes in bytes."""
    return {
        "verdict": plan.verdict,
        "device_bytes": plan.device,
        "host_bytes": plan.host,
        "host_mapped_bytes": plan.mapped,
        "device_capacity_bytes": plan.device_capacity,
        "host_capacity_bytes": plan.host_capacity,
        "layers": plan.layers,
        "layers_on_device": plan.layers_on_device,
        "context_per_slot": plan.context_per_slot,
        "items": [
            {
                "name": item.name,
                "device_bytes": item.device,
                "host_bytes": item.host,
                "host_mapped_bytes": item.mapped,
            }
            for item in plan.items
        ],
        "advice": list(plan.advice),
        "assumptions": list(plan.assumptions),
        "unknown": list(plan.unknown),
    }
