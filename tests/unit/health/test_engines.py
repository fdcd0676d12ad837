"""Which engine of several the appliance waits for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llama_gguf.health.engines import EngineSeen, least_ready, model_status
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.states import Phase

SERVING = EngineSeen("a", Phase.SERVING, EnginePhase(Phase.STARTING, "a"), None)
LOADING = EngineSeen("b", Phase.LOADING, EnginePhase(Phase.STARTING, "b"), None)
ABSENT = EngineSeen("c", None, None, None)


def test_the_appliance_waits_for_every_required_model() -> None:
    assert least_ready([SERVING, LOADING]) is LOADING
    assert least_ready([SERVING, ABSENT]) is ABSENT
    assert least_ready([SERVING]).phase is Phase.SERVING


@pytest.mark.parametrize(
    "other",
    [
        replace(ABSENT, required=False),
        replace(LOADING, required=False),
        replace(ABSENT, on_demand=True),
        replace(LOADING, on_demand=True),
        replace(ABSENT, stopped=True),
        replace(ABSENT, required=False, failure="cannot start"),
    ],
)
def test_it_does_not_wait_for_what_nobody_needs(other: EngineSeen) -> None:
    assert least_ready([other, SERVING]).phase is Phase.SERVING
    assert least_ready([other]).phase is Phase.SERVING  # scaled to zero is ready


def test_a_model_says_what_its_engine_does() -> None:
    assert model_status(SERVING).phase is Phase.SERVING
    assert model_status(LOADING).phase is Phase.LOADING
    assert model_status(ABSENT).phase is Phase.STARTING
    assert model_status(replace(ABSENT, on_demand=True)).phase is Phase.UNLOADED
    assert model_status(replace(ABSENT, stopped=True)).phase is Phase.UNLOADED
    downloading = replace(ABSENT, on_demand=True, step=EnginePhase(Phase.DOWNLOADING))
    assert model_status(downloading).phase is Phase.DOWNLOADING
    failed = model_status(replace(ABSENT, required=False, failure="engine-c cannot start"))
    assert (failed.phase, failed.reason, failed.required) == (Phase.FAILED, "engine-c cannot start", False)
