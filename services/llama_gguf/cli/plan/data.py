"""What `plan --json` prints: the facts as JSON values, in a structure that is stable."""

from __future__ import annotations

import dataclasses
from typing import Any

from llama_gguf.cli.plan.facts import EngineFacts, PlanFacts, PlannedModel, Together
from llama_gguf.models.memory.plan import MemoryPlan
from llama_gguf.models.memory.several_gpus import SeveralGpusPlan
from llama_gguf.rundir import engine_variant


def as_data(facts: PlanFacts) -> dict[str, Any]:
    """Return the facts as JSON values.

    Each model is in `models`; the keys of one model only (`model`, `memory`, `engine`'s argv) are null with several.
    """
    locations, run = facts.locations, facts.locations.run
    only = facts.models[0] if len(facts.models) == 1 else None
    return {
        "config": str(facts.config) if facts.config else None,
        "data_dir": {"path": str(locations.data_dir), "reason": locations.data_dir_reason},
        "run_dir": {"path": str(run.root), "reason": locations.run_dir_reason},
        "paths": {
            name: str(getattr(locations, name))
            for name in ("models_dir", "logs_dir", "keys_file", "audit_file", "usage_file")
        },
        "model": _files_as_data(only) if only else None,
        "models": [_model_as_data(model) for model in facts.models],
        "engine": {**_engine_as_data(facts.models[0].engine), "argv": list(only.argv) if only else None},
        "listen": {
            "gateway": {"host": facts.settings.gateway.host, "port": facts.settings.gateway.port},
            "health": {"host": facts.settings.health.host, "port": facts.settings.health.port},
        },
        "sockets": {
            "engine": str(only.locations.run.engine_socket) if only else None,
            "supervisord": str(run.supervisord_socket),
        },
        "programs": [{"name": program.name, "argv": list(program.argv)} for program in facts.programs],
        "gpus": None if facts.gpus is None else [dataclasses.asdict(gpu) for gpu in facts.gpus],
        "memory": memory_as_data(only.memory) if only and only.memory else None,
        "bytes_per_slot": only.bytes_per_slot if only else None,
        "largest": _largest(only) if only else None,
        "auto": _auto(only) if only else None,
        "memory_problem": only.memory_problem.message if only and only.memory_problem else None,
        "together": _together(facts.together) if facts.together else None,
        "verdict": facts.verdict,
    }


def _largest(model: PlannedModel) -> dict[str, int] | None:
    return dataclasses.asdict(model.largest) if model.largest else None


def _auto(model: PlannedModel) -> list[dict[str, Any]]:
    return [
        {"setting": model.one.place_of(f"engine.{one.setting}"), "value": one.value, "reason": one.reason}
        for one in model.choices
    ]


def _together(together: Together) -> dict[str, Any]:
    return {
        "verdict": together.verdict,
        "device_capacity_bytes": together.machine.device_bytes,
        "host_capacity_bytes": together.machine.host_bytes,
        "needs": {
            name: {"device_bytes": need.device, "host_bytes": need.host} for name, need in together.needs.items()
        },
        "always": list(together.always),
        "sets": [list(names) for names in together.sets],
        "advice": list(together.advice),
    }


def _files_as_data(model: PlannedModel) -> dict[str, Any]:
    return {
        "names": list(model.names),
        "files": [
            {
                "setting": file.wanted.setting,
                "source": file.wanted.description,
                "path": str(file.path),
                "present": file.present,
                "bytes": file.bytes_on_disk,
            }
            for file in model.files
        ],
    }


def _model_as_data(model: PlannedModel) -> dict[str, Any]:
    return {
        "name": model.one.key or None,
        **_files_as_data(model),
        "load": "on_demand" if model.one.on_demand else "always",
        "required": model.one.required,
        "program": model.one.program,
        "socket": str(model.locations.run.engine_socket),
        "engine": {**_engine_as_data(model.engine), "argv": list(model.argv)},
        "memory": memory_as_data(model.memory) if model.memory else None,
        "bytes_per_slot": model.bytes_per_slot,
        "largest": _largest(model),
        "auto": _auto(model),
        "memory_problem": model.memory_problem.message if model.memory_problem else None,
    }


def _engine_as_data(engine: EngineFacts) -> dict[str, Any]:
    return {
        "binary": str(engine.binary) if engine.binary else None,
        "version": engine.version,
        "cpu_variant": engine_variant.summary(engine.variant),
        "problem": engine.problem or None,
        "devices": [dataclasses.asdict(device) for device in engine.devices],
    }


def memory_as_data(plan: MemoryPlan) -> dict[str, Any]:
    """Return a memory plan as JSON values, sizes in bytes; `shares` are those of several GPUs."""
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
        "shares": [
            {
                "gpu": share.gpu.name,
                "layers": share.layers,
                "device_bytes": share.device,
                "device_capacity_bytes": share.gpu.total_bytes,
            }
            for share in (plan.shares if isinstance(plan, SeveralGpusPlan) else ())
        ],
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
