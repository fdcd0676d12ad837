"""The readiness state machine: what was seen, and what was so before -> what is so now. Pure.

There is no timeout: an engine that loads for an hour is starting for an hour. Having been ready is never forgotten:
after it the appliance can be ready or unready, but not starting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.notices import Notice
from llama_gguf.states import Phase, ServiceState

SILENT_CHECKS = 3
"""Checks without an answer before a ready engine counts as unready: one may just be a busy moment."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the appliance."""

    engine: Phase | None = None  # by its /health: SERVING, LOADING, SILENT, BROKEN; None with no one on the socket
    step: EnginePhase | None = None
    gateway: bool = False  # accepts connections
    draining: bool = False
    cpu_variant: dict[str, Any] | None = None  # `engine_variant.summary`
    failure: str | None = None  # that it gave up, in one sentence
    cause: str = ""  # why


@dataclass(frozen=True, slots=True)
class Status:
    """What is so, since when, and why. All of it may be told to strangers but `detail`, which may name files."""

    state: ServiceState
    since: float  # epoch seconds at which `state` began
    phase: Phase = Phase.STARTING
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
    silent = before.silent_checks + (0 if again else 1) if seen.engine is Phase.SILENT else 0
    if before.state is ServiceState.READY and 0 < silent < SILENT_CHECKS:
        seen = replace(seen, engine=Phase.SERVING)
    after = _judge(seen, was_ready=before.was_ready)
    since = before.since if after.state == before.state else now
    model = seen.step.model if seen.step else before.model
    notices = seen.step.warnings if seen.step else before.notices
    after = replace(after, since=since, silent_checks=silent, model=model)
    return replace(after, notices=notices, cpu_variant=seen.cpu_variant)


def _judge(seen: Seen, *, was_ready: bool) -> Status:
    if seen.failure is not None:
        return Status(
            ServiceState.FAILED, 0.0, Phase.FAILED, detail=seen.cause, reason=seen.failure, was_ready=was_ready
        )
    if seen.draining:
        return Status(ServiceState.DRAINING, 0.0, Phase.DRAINING, reason="a stop was requested", was_ready=was_ready)
    if seen.engine is Phase.SERVING and seen.gateway:
        return Status(ServiceState.READY, 0.0, Phase.SERVING, was_ready=True)
    state = ServiceState.UNREADY if was_ready else ServiceState.STARTING
    return replace(_unfinished(seen, state), was_ready=was_ready)


_REASONS = {
    Phase.SERVING: (Phase.GATEWAY, "the gateway does not accept connections yet"),
    Phase.LOADING: (Phase.LOADING, "the engine loads the model"),
    Phase.SILENT: (Phase.SILENT, "the engine does not answer in time"),
    Phase.BROKEN: (Phase.BROKEN, "the engine answers with an error"),
}
"""What the engine answers -> what is missing."""


def _unfinished(seen: Seen, state: ServiceState) -> Status:
    """Name the step that is missing."""
    if seen.engine is not None:
        phase, reason = _REASONS[seen.engine]
        return Status(state, 0.0, phase, reason=reason)
    step = seen.step or EnginePhase(Phase.STARTING)
    status = Status(state, 0.0, step.phase, detail=step.detail, reason=f"the engine is {step.phase}")
    return replace(status, bytes_done=step.bytes_done, bytes_total=step.bytes_total)
