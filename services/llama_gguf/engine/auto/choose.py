"""Values for engine settings that are `auto`, from the plan of `plan`, for the memory that is free at the start.

The engine's program imports this only where a setting is `auto`: it needs the settings with pydantic, and the headers
of all models.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llama_gguf.engine.auto.machine import usable_cpu
from llama_gguf.engine.binary import Device
from llama_gguf.engine.cgroup import free_memory_bytes, memory_bytes
from llama_gguf.errors import ModelError
from llama_gguf.logs import fields
from llama_gguf.models.memory.devices import Gpu
from llama_gguf.models.memory.resolve_auto import Resolved
from llama_gguf.models.memory.several_gpus import chosen_gpus
from llama_gguf.models.planning.budget import Left, left_for, read_all, scaled, shared_memory
from llama_gguf.models.planning.weights import HeaderReader, ModelWeights, header_reader
from llama_gguf.models.source import plan_sources
from llama_gguf.rundir import engine_values, engine_variant
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.engine_values import ChosenValues
from llama_gguf.rundir.notices import Notice
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings.one_model import OneModel, each_model, with_engine

log = logging.getLogger(__name__)


def choose(snapshot: Snapshot, env: Mapping[str, str], devices: Sequence[Device]) -> tuple[Snapshot, Notice]:
    """Return the snapshot of one engine with values for what is `auto`, and what was chosen; record it.

    `devices` are the GPUs that may be used, with what is free on each. Raises ModelError for a file that cannot be
    planned.
    """
    run = snapshot.locations.run
    whole = snapshots.read_validated(run.snapshot)
    resolved = resolve(
        whole,
        run.engine,
        devices,
        header_reader(env),
        env,
        totals=(sum(device.total_bytes for device in devices), memory_bytes()),
        free_host=free_memory_bytes(),
    )
    reasons = {choice.setting: choice.reason for choice in resolved.choices}
    engine_values.write(ChosenValues(resolved.values, reasons, resolved.fits), run.engine_auto)
    changed = replace(snapshot, settings=with_engine(snapshot.settings, **resolved.values))
    notice = notice_of(ChosenValues(resolved.values, reasons, resolved.fits))
    log.info(notice.message, extra=fields(fits=resolved.fits, **resolved.values))
    return changed, notice


def notice_of(chosen: ChosenValues) -> Notice:
    """Return what was chosen, and why, in a sentence."""
    values = [f"{name} {value} ({chosen.reasons.get(name, '')})" for name, value in chosen.values.items()]
    message = f"engine settings that are auto: {', '.join(values)}"
    if chosen.fits:
        return Notice("engine-auto", message, "set a value to have that one")
    return Notice(
        "engine-auto",
        f"{message}; even so the model is expected not to fit into the free memory",
        "see `llama-gguf plan`; use a smaller model or a smaller quantisation of it, or lower the minima of "
        "engine.shrink",
    )


def resolve(
    whole: Snapshot,
    program: str,
    devices: Sequence[Device],
    read: HeaderReader,
    env: Mapping[str, str],
    *,
    totals: tuple[int, int | None],
    free_host: int | None,
) -> Resolved:
    """Return the settings of one engine, resolved for what the other models leave and for what is free now.

    `totals` are the bytes of all GPUs and of main memory that there are.
    """
    models = each_model(whole.settings)
    own = next(one for one in models if one.program == program)
    known = read_all(
        {one.key: plan_sources(one.settings.model, whole.locations, env, one.place) for one in models}, read
    )
    for one in models:
        if not isinstance(problem := known[one.key], ModelWeights) and one is not own:
            log.warning("a model is not planned for", extra=fields(model=one.key, reason=problem.message))
    if not isinstance(found := known[own.key], ModelWeights):
        raise ModelError(found.message, hint=found.hint, code=getattr(found, "code", "model_unusable"))
    shared = shared_memory(whole.settings, *totals)
    gpus = tuple(Gpu(device.name, device.total_bytes) for device in devices)
    cpus = {one.key: usable_cpu(engine_variant.read(_variant_file(whole, one))) for one in models}
    left = left_for(own.key, models, known, Left(shared, scaled(gpus, shared)), cpus)
    if left is None:
        raise ValueError(f"{program} has weights, but was not planned")
    free = [devices[number].free_bytes for number in chosen_gpus(own.settings.engine, len(devices))]
    left = left.at_most(free, free_host)
    return found.resolve(own.settings.engine, replace(left.machine, cpu=cpus[own.key]), left.gpus)


def _variant_file(whole: Snapshot, one: OneModel) -> Path:
    return whole.locations.of_engine(one.program).run.engine_variant
