"""The readiness state machine: the status before and what was observed -> the status now. Pure.

There is no timeout: an engine that loads for an hour is starting for an hour. Once it has been ready,
the appliance can be ready or unready, but not starting again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.notices import Notice
from llama_gguf.states import Phase, ServiceState

FAILURE_THRESHOLD = 3
"""Checks in a row without a response after which a ready engine is unready: one may just be a busy moment."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One of several models: what its engine does. Of several, `Observation.engine` is the one that is least ready."""

    name: str  # for clients
    phase: Phase
    required: bool
    reason: str = ""  # why it failed


@dataclass(frozen=True, slots=True)
class Observation:
    """What one check of the appliance found."""

    engine: Phase | None = None  # by its /health: SERVING, LOADING, SILENT, BROKEN; None where nothing listens
    step: EnginePhase | None = None
    models: tuple[ModelStatus, ...] = ()  # each of several
    gateway: bool = False  # accepts connections
    draining: bool = False
    cpu_variant: dict[str, Any] | None = None  # `engine_variant.summary`
    failure: str | None = None  # why it gave up, in one sentence
    cause: str = ""  # of the failure


@dataclass(frozen=True, slots=True)
class Status:
    """The state, since when, and why. All of it is public but `detail`, which can name files."""

    state: ServiceState
    since: float  # epoch seconds at which `state` began
    phase: Phase = Phase.STARTING
    model: str = ""  # its name for clients
    detail: str = ""  # for the log and PyWorker only
    reason: str = ""  # why it is not ready
    bytes_done: int | None = None
    bytes_total: int | None = None
    was_ready: bool = False
    silent_checks: int = 0
    notices: tuple[Notice, ...] = ()  # warnings of this engine
    cpu_variant: dict[str, Any] | None = None  # of the engine's code, and which ones crashed
    models: tuple[ModelStatus, ...] = ()  # each of several


def advance(before: Status, seen: Observation, now: float, *, probed: bool = True) -> Status:
    """Return the status that follows from `seen`; `probed` is False for probes of an earlier check, counted then."""
    silent = before.silent_checks + probed if seen.engine is Phase.SILENT else 0
    if before.state is ServiceState.READY and 0 < silent < FAILURE_THRESHOLD:
        seen = replace(seen, engine=Phase.SERVING)
    after = _judge(seen, was_ready=before.was_ready)
    since = before.since if after.state == before.state else now
    model = seen.step.model if seen.step else before.model
    notices = seen.step.warnings if seen.step else before.notices
    after = replace(after, since=since, silent_checks=silent, model=model)
    return replace(after, notices=notices, cpu_variant=seen.cpu_variant, models=seen.models)


def _judge(seen: Observation, *, was_ready: bool) -> Status:
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
    Phase.SERVING: (Phase.GATEWAY, "the gateway is not accepting connections yet"),
    Phase.LOADING: (Phase.LOADING, "the engine is loading the model"),
    Phase.SILENT: (Phase.SILENT, "the engine does not respond in time"),
    Phase.BROKEN: (Phase.BROKEN, "the engine responds with an error"),
}
"""Phase of the engine by its /health -> the phase of the service, and why it is not ready."""


def _unfinished(seen: Observation, state: ServiceState) -> Status:
    """Return the status of a service that is not ready: what is still to be done."""
    if seen.engine is not None:
        phase, reason = _REASONS[seen.engine]
        return Status(state, 0.0, phase, reason=reason)
    step = seen.step or EnginePhase(Phase.STARTING)
    status = Status(state, 0.0, step.phase, detail=step.detail, reason=f"the engine is {step.phase}")
    return replace(status, bytes_done=step.bytes_done, bytes_total=step.bytes_total)
