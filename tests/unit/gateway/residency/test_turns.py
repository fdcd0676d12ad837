"""Whose turn it is to be loaded, and from when a model has to give way."""

from __future__ import annotations

from typing import Any

from llama_gguf.gateway.residency.model_state import ModelState, Need, Rules
from llama_gguf.gateway.residency.turns import by_eviction, by_turn, due_at, gives_way_at
from llama_gguf.states import Residency

RULES = Rules(max_age_seconds=60.0, min_resident_seconds=10.0)
NOW = 1000.0


def waits(name: str, seconds: float, count: int = 1, **changes: Any) -> ModelState:
    return ModelState(
        name, Need(1, 0), Residency.UNLOADED, waiting=count, oldest_waiting_since=NOW - seconds, **changes
    )


def loaded(name: str, state: str = "loaded", **changes: Any) -> ModelState:
    return ModelState(name, Need(1, 0), Residency(state), **changes)


def turns(*models: ModelState) -> str:
    return "".join(model.name for model in by_turn(models, RULES, NOW))


def test_most_requests_for_the_load_time_first() -> None:
    assert turns(waits("a", 1, 2), waits("b", 1, 3)) == "ba"
    assert turns(waits("a", 1, 2, load_seconds=1), waits("b", 1, 3, load_seconds=5)) == "ab"
    assert turns(waits("b", 1), waits("a", 1)) == "ab", "the name decides what nothing else does"
    assert turns(waits("a", 1), waits("b", 2)) == "ba", "the longest waiting does"


def test_one_that_waited_too_long_comes_before_the_many() -> None:
    assert turns(waits("a", 60), waits("b", 59, 100)) == "ab"
    assert turns(waits("a", 60), waits("b", 61)) == "ba"


def test_who_had_a_turn_since_the_longest_waiting_came_is_behind() -> None:
    """Whatever the turn was: it served, was loaded, was unloaded or failed to load."""
    for turn in ("last_used", "loaded_at", "since"):
        assert turns(waits("a", 1, 100, **{turn: NOW - 4}), waits("b", 5)) == "ba"
        assert turns(waits("a", 1, 100, **{turn: NOW - 6}), waits("b", 5)) == "ab"
    assert turns(waits("a", 99, 9, since=NOW - 1), waits("b", 98, since=NOW - 2), waits("c", 1)) == "cba"


def test_a_turn_puts_off_when_one_is_due() -> None:
    assert due_at(waits("a", 50), RULES, NOW) == NOW + 10
    assert due_at(waits("a", 50, since=NOW - 20), RULES, NOW) == NOW + 40


def test_from_when_a_model_gives_way() -> None:
    def at(other: ModelState, **changes: Any) -> float:
        return gives_way_at(loaded("v", loaded_at=NOW - 5, **changes), other, RULES, NOW) - NOW

    assert at(waits("x", 1)) <= 0, "an idle one at once"
    assert at(waits("x", 1, load_seconds=1), running=1, load_seconds=1) == 5
    assert at(waits("x", 1, load_seconds=20), running=1, load_seconds=10) == 25
    queued: dict[str, Any] = {"waiting": 1, "running": 1, "load_seconds": 1}
    assert at(waits("x", 8, load_seconds=1), oldest_waiting_since=NOW - 9, **queued) == 52
    assert at(waits("x", 9, load_seconds=1), oldest_waiting_since=NOW - 8, **queued) == 5
    assert at(waits("x", 8, load_seconds=1), oldest_waiting_since=NOW - 4, **queued) == 5


def test_who_gives_way_first() -> None:
    models = [
        loaded("a", running=1, loaded_at=50),
        loaded("b", running=1, loaded_at=20),
        loaded("c", "draining", running=9, loaded_at=90),
        loaded("d", last_used=80),
        loaded("e", loaded_at=70),
        loaded("f", "draining", waiting=5, last_used=75),
    ]
    assert "".join(model.name for model in by_eviction(models)) == "efdcba"
