"""The readiness state machine: what was seen, and what was so before -> what is so now. Pure.

There is no timeout: an engine that loads for an hour is starting for an hour. Having been ready is never forgotten:
after it the appliance can be ready or unready, but not starting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.notices import Notice

State = Literal["starting", "ready", "unready", "draining", "failed"]
EngineAnswer = Literal["absent", "loading", "ready", "silent", "broken"]
"""No one on the socket; 503; 200; no answer in time; any other answer."""

SILENT_CHECKS = 3
"""Checks without an answer before a ready engine counts as unready: one may just be a busy moment."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the appliance."""

    engine: EngineAnswer = "absent"
    step: EnginePhase | None = None
    gateway: bool = False  # accepts connections
    draining: bool = False
    cpu_variant: dict[str, Any] | None = None  # `engine_variant.summary`
    failure: str | None = None  # that it gave up, in one sentence
    cause: str = ""  # why


@dataclass(frozen=True, slots=True)
class Status:
    """What is so, since when, and why. All of it may be told to strangers but `detail`, which may name files."""

    state: State
    since: float  # epoch seconds at which `state` began
    phase: str = "starting"  # resolving, downloading, verifying, starting, loading, gateway, serving, …
    model: str = ""  # its name for clients
    detail: str = ""  # for the log only
    reason: str = ""  # why it is not ready
    bytes_done: int | None = None
    bytes_total: int | None = None
    was_ready: bool = False
    silent_checks: int = 0
    notices: tuple[Notice, ...] = ()  # what works, but not as it should
    cpu_variant: dict[str, Any] | None = None  # of the engine's code, and which ones crashed


def advance(before: Status, seen: Seen, now: float, *, again: bool = False) -> Status:
    """Return the status that follows from `seen`; `again` says that its probes were counted before."""
    silent = before.silent_checks + (0 if again else 1) if seen.engine == "silent" else 0
    if before.state == "ready" and 0 < silent < SILENT_CHECKS:
        seen = replace(seen, engine="ready")
    after = _judge(seen, was_ready=before.was_ready)
    since = before.since if after.state == before.state else now
    model = seen.step.model if seen.step else before.model
    notices = seen.step.warnings if seen.step else before.notices
    after = replace(after, since=since, silent_checks=silent, model=model)
    return replace(after, notices=notices, cpu_variant=seen.cpu_variant)


def _judge(seen: Seen, *, was_ready: bool) -> Status:
    if seen.failure is not None:
        return Status("failed", 0.0, "failed", detail=seen.cause, reason=seen.failure, was_ready=was_ready)
    if seen.draining:
        return Status("draining", 0.0, "draining", reason="a stop was asked for", was_ready=was_ready)
    if seen.engine == "ready" and seen.gateway:
        return Status("ready", 0.0, "serving", was_ready=True)
    found = _unfinished(seen)
    return replace(found, state="unready" if was_ready else "starting", was_ready=was_ready)


def _unfinished(seen: Seen) -> Status:
    """Name the step that is missing."""
    if seen.engine == "ready":
        return Status("starting", 0.0, "gateway", reason="the gateway does not accept connections yet")
    if seen.engine == "loading":
        return Status("starting", 0.0, "loading", reason="the engine loads the model")
    if seen.engine == "silent":
        return Status("starting", 0.0, "silent", reason="the engine does not answer in time")
    if seen.engine == "broken":
        return Status("starting", 0.0, "broken", reason="the engine answers with an error")
    step = seen.step or EnginePhase("starting")
    phase = "starting" if step.phase == "exec" else step.phase
    reason = f"the engine is {phase}"
    return Status(
        "starting", 0.0, phase, "", step.detail, reason, bytes_done=step.bytes_done, bytes_total=step.bytes_total
    )
