from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.health.state import Observation, Status, advance
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.notices import Notice
from llama_gguf.states import Phase, ServiceState

START = Status(ServiceState.STARTING, 0.0)
STEP = EnginePhase(Phase.STARTING, "m", "/m.gguf")
READY = Observation(engine=Phase.SERVING, gateway=True)


def after(*looks: Observation, start: Status = START) -> Status:
    status = start
    for number, seen in enumerate(looks, 1):
        status = advance(status, seen, float(number))
    return status


def test_a_whole_life() -> None:
    downloading = EnginePhase(Phase.DOWNLOADING, "m", "m.gguf", 5, 10)
    steps = [
        (Observation(), "starting", "starting"),
        (Observation(step=EnginePhase(Phase.RESOLVING, "m", "looking")), "starting", "resolving"),
        (Observation(step=downloading, gateway=True), "starting", "downloading"),
        (Observation(step=STEP, gateway=True), "starting", "starting"),
        (
            Observation(engine=Phase.LOADING, step=STEP, gateway=True),
            "starting",
            "loading",
        ),
        (Observation(engine=Phase.SERVING), "starting", "gateway"),
        (READY, "ready", "serving"),
        (Observation(gateway=True), "unready", "starting"),
        (Observation(engine=Phase.LOADING, gateway=True), "unready", "loading"),
        (READY, "ready", "serving"),
        (replace(READY, draining=True), "draining", "draining"),
        (replace(READY, draining=True, failure="x"), "failed", "failed"),
    ]
    status = START
    for number, (seen, state, phase) in enumerate(steps):
        status = advance(status, seen, float(number))
        assert (status.state, status.phase) == (state, phase)
    assert status.reason == "x"


def test_an_engine_that_loads_for_days_is_starting_for_days() -> None:
    """Defect 1 of the old system: readiness gave up after 30 s and killed a big model that was still loading."""
    status = START
    for minute in range(10_000):
        status = advance(status, Observation(engine=Phase.LOADING, gateway=True), minute * 60.0)
    assert (status.state, status.since) == ("starting", 0.0)


def test_since_is_when_the_state_began() -> None:
    assert after(Observation(), Observation(engine=Phase.LOADING), Observation(engine=Phase.LOADING)).since == 0.0
    assert after(Observation(), READY, READY).since == 2.0


def test_progress_is_passed_on() -> None:
    step = EnginePhase(Phase.DOWNLOADING, "tiny", "/m.gguf", 5, 10)
    status = after(Observation(step=step))
    assert (status.bytes_done, status.bytes_total, status.model, status.detail) == (5, 10, "tiny", "/m.gguf")
    served = after(Observation(step=step), READY)
    assert (served.bytes_done, served.model, served.detail) == (None, "tiny", "")


def test_warnings_stand_whatever_the_state() -> None:
    step = EnginePhase(Phase.STARTING, "tiny", "/m.gguf", warnings=(Notice("a", "m"),))
    for seen in (
        Observation(engine=Phase.LOADING),
        READY,
        Observation(draining=True),
        Observation(failure="x"),
        Observation(engine=Phase.BROKEN),
    ):
        assert (
            after(Observation(step=step), seen).notices == step.warnings
        )  # also where the record cannot be read just now
        assert after(replace(seen, step=step)).notices == step.warnings
    anew = replace(READY, step=EnginePhase(Phase.STARTING, "tiny"))
    assert after(Observation(step=step), anew).notices == ()  # a new engine has none


def test_one_busy_moment_does_not_make_it_unready_but_a_hang_does() -> None:
    silent = Observation(engine=Phase.SILENT, gateway=True)
    assert after(READY, silent, silent).state == "ready"
    assert after(READY, silent, READY, silent, silent).state == "ready"
    hung = after(READY, silent, silent, silent)
    assert (hung.state, hung.phase) == ("unready", "silent")
    assert after(silent).state == "starting"


def test_taking_a_look_again_counts_no_silence() -> None:
    silent = Observation(engine=Phase.SILENT, gateway=True)
    status = after(READY, silent)
    for _ in range(10):
        status = advance(status, silent, 9.0, probed=False)
    assert status.state == "ready"


def test_a_gateway_that_is_gone_makes_it_unready() -> None:
    status = after(READY, Observation(engine=Phase.SERVING, gateway=False))
    assert (status.state, status.phase) == ("unready", "gateway")


@pytest.mark.parametrize("engine", [None, Phase.LOADING, Phase.SILENT, Phase.BROKEN])
def test_every_reason_has_words(engine: Phase | None) -> None:
    assert after(Observation(engine=engine)).reason


LOOKS = st.builds(
    Observation,
    engine=st.sampled_from([None, Phase.LOADING, Phase.SERVING, Phase.SILENT, Phase.BROKEN]),
    step=st.none() | st.builds(EnginePhase, phase=st.sampled_from(Phase)),
    gateway=st.booleans(),
    draining=st.booleans(),
    failure=st.none() | st.just("broken"),
)


@given(st.lists(LOOKS, max_size=30))
def test_never_starting_after_ready_and_never_ready_without_an_answering_engine(looks: list[Observation]) -> None:
    """RunPod's contract: never 204 after a 200, never 200 before the engine said so."""
    status = START
    states: list[ServiceState] = []
    for number, seen in enumerate(looks):
        status = advance(status, seen, float(number))
        states.append(status.state)
        if "ready" in states[:-1]:
            assert status.state != "starting"
            assert status.was_ready
        if status.state == "ready":
            assert seen.gateway
            assert seen.engine in {Phase.SERVING, Phase.SILENT}
            assert any(past.engine is Phase.SERVING for past in looks[: number + 1])
        if seen.failure:
            assert status.state == "failed"
