"""Checks across settings. Pure: Settings in, problems out; what needs files is in `file_checks`.

Each check names the settings it reads, so that it can be left out while one of them is still wrong by itself and a
message about its default would mislead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from llama_gguf.errors import Problem

from . import checks_engine, checks_http, checks_model, checks_paths
from .root import Settings


@dataclass(frozen=True, slots=True)
class Check:
    """A function of the settings, and the dotted names of what it reads."""

    run: Callable[[Settings], Iterator[Problem]]
    reads: tuple[str, ...]


CHECKS: tuple[Check, ...] = (
    Check(checks_model.sources, ("model",)),
    Check(checks_model.addresses, ("model",)),
    Check(checks_model.names, ("model",)),
    Check(checks_model.tokens, ("model",)),
    Check(checks_model.aliases, ("model.aliases",)),
    Check(checks_model.companions, ("model", "engine.task")),
    Check(checks_engine.cache, ("engine.cache_type_v", "engine.flash_attention")),
    Check(checks_engine.batches, ("engine.batch_size", "engine.ubatch_size", "engine.task", "engine.context_per_slot")),
    Check(checks_engine.pooling, ("engine.pooling", "engine.task")),
    Check(checks_engine.total_context, ("engine.context_per_slot", "engine.slots")),
    Check(checks_engine.extra_args, ("engine.extra_args", "engine.allow_unsafe_args")),
    Check(checks_engine.in_flight, ("limits.max_in_flight", "engine.slots")),
    Check(checks_http.ports, ("gateway.port", "health.port", "gateway.host", "health.host")),
    Check(checks_http.hosts, ("gateway.host", "health.host")),
    Check(checks_http.origins, ("gateway.cors",)),
    Check(checks_http.routes, ("gateway.routes",)),
    Check(checks_http.timeouts, ("gateway.timeouts",)),
    Check(checks_http.key_header, ("auth.extra_header",)),
    Check(checks_http.bootstrap, ("auth.bootstrap",)),
    Check(checks_http.open_to_all, ("auth.enabled", "gateway.host", "metrics.require_key")),
    Check(checks_http.queue, ("limits.queue",)),
    Check(checks_http.store, ("limits.store", "limits.store_password_env")),
    Check(checks_http.health_path, ("health.path",)),
    Check(checks_paths.run_dir, ("paths.run_dir",)),
    Check(checks_paths.unexpanded, ()),  # these two look only at what is there
    Check(checks_paths.quoted, ()),
    Check(checks_http.runpod, ("health.platform", "gateway.max_body_bytes", "gateway.timeouts")),
)


def check(settings: Settings, *, skip: Collection[str] = ()) -> list[Problem]:
    """Return every problem between settings; checks that read a setting in `skip` are left out."""
    return [
        problem for one in CHECKS if not any(touches(name, skip) for name in one.reads) for problem in one.run(settings)
    ]


def touches(name: str, others: Collection[str]) -> bool:
    """Return whether a dotted name is, holds, or lies in one of `others`."""
    return any(name == other or _holds(name, other) or _holds(other, name) for other in others)


def _holds(group: str, name: str) -> bool:
    return name.startswith((f"{group}.", f"{group}["))
