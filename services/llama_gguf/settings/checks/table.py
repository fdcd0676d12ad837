"""Checks across settings. Pure: Settings in, problems out; what needs files is in `machine`.

Each check names the settings it reads, so that it can be skipped while one of them is invalid and a
message about its default would be misleading.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from llama_gguf.errors import Problem
from llama_gguf.settings.checks import engine, model, models, network, paths, placement, speculation
from llama_gguf.settings.one_model import OneModel, each_model
from llama_gguf.settings.sections.settings import Settings


@dataclass(frozen=True, slots=True)
class Check:
    """A function of the settings, and the dotted names of what it reads."""

    run: Callable[[Settings], Iterator[Problem]]
    reads: tuple[str, ...]


_GPUS = ("engine.devices", "engine.split_mode", "engine.tensor_split", "engine.main_gpu")
MODEL_CHECKS: tuple[Check, ...] = (
    Check(model.sources, ("model",)),
    Check(model.urls, ("model",)),
    Check(model.names, ("model",)),
    Check(model.formats, ("model",)),
    Check(model.tokens, ("model",)),
    Check(model.aliases, ("model.aliases",)),
    Check(model.companions, ("model", "engine.task")),
    Check(model.variants, ("model.variants", "model.lora")),
    Check(engine.cache, ("engine.cache_type_v", "engine.flash_attention")),
    Check(engine.batches, ("engine.batch_size", "engine.ubatch_size", "engine.task", "engine.context_per_slot")),
    Check(engine.slots, ("engine.slots", "engine.batch_size")),
    Check(engine.pooling, ("engine.pooling", "engine.task")),
    Check(engine.total_context, ("engine.context_per_slot", "engine.slots")),
    Check(placement.devices, (*_GPUS, "engine.flash_attention")),
    Check(placement.unused, (*_GPUS, "engine.gpu_layers", "engine.cpu_moe_layers")),
    Check(placement.rope, ("engine.rope",)),
    Check(placement.cache_reuse, ("engine.cache_reuse_tokens", "engine.task", "model.mmproj")),
    Check(placement.shrink, ("engine.shrink", "engine.slots", "engine.context_per_slot", "engine.gpu_layers")),
    Check(speculation.types, ("engine.speculative", "engine.task", "model.draft", "auth.enabled")),
    Check(speculation.numbers, ("engine.speculative", "model.draft")),
    Check(speculation.batches, ("engine.speculative", "model.draft", "engine.slots", "engine.batch_size")),
    Check(speculation.reasoning, ("engine.reasoning", "engine.task")),
    Check(engine.extra_args, ("engine",)),
    Check(engine.in_flight, ("limits.max_in_flight", "engine.slots")),
)
"""Those of one model: each runs for every model, with settings in which it is the only one."""
CHECKS: tuple[Check, ...] = (
    Check(models.one_or_several, ("model", "models")),
    Check(models.names, ("models",)),
    Check(models.loading, ("models",)),
    Check(network.ports, ("gateway.port", "health.port", "gateway.host", "health.host")),
    Check(network.hosts, ("gateway.host", "health.host")),
    Check(network.origins, ("gateway.cors",)),
    Check(network.routes, ("gateway.routes",)),
    Check(network.timeouts, ("gateway.timeouts",)),
    Check(network.key_header, ("auth.extra_header",)),
    Check(network.bootstrap, ("auth.bootstrap",)),
    Check(network.open_to_all, ("auth.enabled", "gateway.host", "metrics.require_key")),
    Check(network.queue, ("limits.queue",)),
    Check(network.store, ("limits.store", "limits.store_password_env")),
    Check(network.health_path, ("health.path",)),
    Check(paths.run_dir, ("paths.run_dir",)),
    Check(paths.unexpanded, ()),  # these two read only what is set
    Check(paths.quoted, ()),
    Check(network.runpod, ("health.platform", "gateway.max_body_bytes", "gateway.timeouts")),
)


def check(settings: Settings, *, skip: Collection[str] = ()) -> list[Problem]:
    """Return every problem between settings; checks that read a setting in `skip` are skipped."""
    several = each_model(settings)
    found = [
        replaced(problem, one)
        for one in several
        for each in MODEL_CHECKS
        if not any(touches(name, skip) for read in each.reads for name in {read, one.place_of(read)})
        for problem in each.run(one.settings)
    ]
    found += [
        problem for one in CHECKS if not any(touches(name, skip) for name in one.reads) for problem in one.run(settings)
    ]
    return list(dict.fromkeys(found))


def replaced(problem: Problem, one: OneModel, *, own: bool = False) -> Problem:
    """Return a problem of one model's settings with the places that these have in the whole configuration.

    `own`: it is a problem of this model even where its settings are those of all.
    """
    if not one.key:
        return problem
    message = one.placed(problem.message, own=own)
    path, hint = one.place_of(problem.path, own=own), one.advice(problem.hint, message)
    return dataclasses.replace(problem, path=path, message=message, hint=hint)


def touches(name: str, others: Collection[str]) -> bool:
    """Return whether a dotted name is, contains, or is below one of `others`."""
    return any(name == other or _contains(name, other) or _contains(other, name) for other in others)


def _contains(group: str, name: str) -> bool:
    return name.startswith((f"{group}.", f"{group}["))
