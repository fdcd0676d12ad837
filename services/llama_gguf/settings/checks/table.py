"""Checks across settings. Pure: Settings in, problems out; what needs files is in `machine`.

Each check names the settings it reads, so that it can be skipped while one of them is invalid and a
message about its default would be misleading.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from llama_gguf.errors import Problem
from llama_gguf.settings.checks import engine, model, network, paths
from llama_gguf.settings.sections.settings import Settings


@dataclass(frozen=True, slots=True)
class Check:
    """A function of the settings, and the dotted names of what it reads."""

    run: Callable[[Settings], Iterator[Problem]]
    reads: tuple[str, ...]


CHECKS: tuple[Check, ...] = (
    Check(model.sources, ("model",)),
    Check(model.urls, ("model",)),
    Check(model.names, ("model",)),
    Check(model.tokens, ("model",)),
    Check(model.aliases, ("model.aliases",)),
    Check(model.companions, ("model", "engine.task")),
    Check(engine.cache, ("engine.cache_type_v", "engine.flash_attention")),
    Check(engine.batches, ("engine.batch_size", "engine.ubatch_size", "engine.task", "engine.context_per_slot")),
    Check(engine.pooling, ("engine.pooling", "engine.task")),
    Check(engine.total_context, ("engine.context_per_slot", "engine.slots")),
    Check(engine.extra_args, ("engine.extra_args", "engine.allow_unsafe_args")),
    Check(engine.in_flight, ("limits.max_in_flight", "engine.slots")),
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
    return [
        problem for one in CHECKS if not any(touches(name, skip) for name in one.reads) for problem in one.run(settings)
    ]


def touches(name: str, others: Collection[str]) -> bool:
    """Return whether a dotted name is, contains, or is below one of `others`."""
    return any(name == other or _contains(name, other) or _contains(other, name) for other in others)


def _contains(group: str, name: str) -> bool:
    return name.startswith((f"{group}.", f"{group}["))
