"""What was seen of each engine, and which of several stands for the appliance. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_gguf.health.state import ModelStatus
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.states import Phase


@dataclass(frozen=True, slots=True)
class EngineSeen:
    """One engine at one check. `stopped`: on purpose, because nobody needs its model now."""

    name: str  # of its model, for clients
    phase: Phase | None  # by its /health; None where nothing listens
    step: EnginePhase | None
    cpu_variant: dict[str, Any] | None
    required: bool = True
    on_demand: bool = False
    stopped: bool = False
    failure: str = ""

    @property
    def missing(self) -> bool:
        """Whether the appliance is not ready because of it."""
        return self.required and not self.on_demand and not self.stopped and self.phase is not Phase.SERVING


def least_ready(engines: Sequence[EngineSeen]) -> EngineSeen:
    """Return the engine that the appliance waits for; if it waits for none, one as if it served."""
    for one in engines:
        if one.missing:
            return one
    first = engines[0]
    serving = next((one for one in engines if one.phase is Phase.SERVING), first)
    return EngineSeen(serving.name, Phase.SERVING, serving.step or first.step, serving.cpu_variant)


def model_status(one: EngineSeen) -> ModelStatus:
    """Return what clients of the health server see of one of several models."""
    phase = one.phase
    if one.failure:
        phase = Phase.FAILED
    elif phase is None:
        idle = one.stopped or (one.on_demand and one.step is None)
        phase = Phase.UNLOADED if idle else one.step.phase if one.step else Phase.STARTING
    return ModelStatus(one.name, phase, one.required, one.failure)
