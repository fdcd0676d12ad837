"""What is loaded and unloaded when: single decisions, and whole schedules on a virtual clock."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llama_gguf.gateway.residency.model_state import Action, Budget, ModelState, Need, Rules
from llama_gguf.gateway.residency.policy import can_come, decide, next_check
from llama_gguf.states import Residency
from support.residency_simulation import BACKOFF_SECONDS, Engine, Simulation

GIB = 1 << 30
RULES = Rules(max_age_seconds=60.0, min_resident_seconds=10.0)
BUDGET = Budget(device=10 * GIB, host=None)
NOW = 1000.0


def model(name: str, gib: float, state: str = "unloaded", **changes: Any) -> ModelState:
    """A model of so many GiB; one that requests wait for has had them for a second unless said otherwise."""
    if changes.get("waiting") and "oldest_waiting_since" not in changes:
        changes["oldest_waiting_since"] = NOW - 1
    return ModelState(name, Need(int(gib * GIB), 0), Residency(state), **changes)


def steps(*models: ModelState, budget: Budget = BUDGET, rules: Rules = RULES, now: float = NOW) -> list[str]:
    return [f"{action.kind} {action.name}" for action in decide(models, budget, rules, now)]


# --- single decisions --------------------------------------------------------------------------------------------


def test_what_is_waited_for_is_loaded_and_nothing_else() -> None:
    assert steps(model("a", 4), model("b", 4)) == []
    assert steps(model("a", 4, waiting=1), model("b", 4)) == ["load a"]


def test_one_load_at_a_time() -> None:
    assert steps(model("a", 1, waiting=1), model("b", 1, waiting=2)) == ["load b"]
    assert steps(model("a", 1, waiting=1), model("b", 1, "loading")) == []


def test_most_waiting_requests_for_the_seconds_of_the_load_come_first() -> None:
    slow = model("a", 1, waiting=5, load_seconds=20)
    assert steps(slow, model("b", 1, waiting=2, load_seconds=2)) == ["load b"]
    assert steps(slow, model("b", 1, waiting=2, load_seconds=10)) == ["load a"]


def test_an_idle_one_gives_way_at_once_and_the_load_waits_for_its_memory() -> None:
    waits = model("b", 8, waiting=1)
    assert steps(model("a", 8, "loaded", loaded_at=NOW - 0.5), waits) == ["drain a", "unload a"]
    assert steps(model("a", 8, "unloading"), waits) == []
    assert steps(model("a", 8), waits) == ["load b"]


def test_the_least_recently_used_gives_way_and_no_more_than_have_to() -> None:
    old, new = model("a", 3, "loaded", last_used=10), model("b", 3, "loaded", last_used=20)
    large = model("c", 4, "loaded", last_used=30)
    assert steps(old, new, large, model("d", 3, waiting=1)) == ["drain a", "unload a"]
    assert steps(old, new, large, model("d", 4, waiting=1)) == ["drain a", "unload a", "drain b", "unload b"]
    assert steps(old, new, large, model("d", 7, waiting=1)) == ["drain a", "unload a", "drain c", "unload c"]


def test_a_running_request_is_never_interrupted() -> None:
    waits = model("b", 8, waiting=1, oldest_waiting_since=0.0)
    assert steps(model("a", 8, "loaded", running=1), waits) == ["drain a"]
    assert steps(model("a", 8, "draining", running=1), waits) == []
    assert steps(model("a", 8, "draining", waiting=3), waits) == ["unload a"]


@pytest.mark.parametrize("kept", [{"pinned": True}, {"always": True}])
def test_pinned_and_always_loaded_ones_give_way_to_nobody(kept: dict[str, bool]) -> None:
    assert steps(model("a", 8, "loaded", **kept), model("b", 8, waiting=1, oldest_waiting_since=0.0)) == []


def test_a_busy_one_serves_as_long_as_the_swap_costs_and_no_less_than_the_rules_say() -> None:
    waits = model("b", 8, waiting=1, load_seconds=8)

    def after(seconds: float, load_seconds: float) -> list[str]:
        busy = model("a", 8, "loaded", running=1, loaded_at=NOW - seconds, load_seconds=load_seconds)
        return steps(busy, waits)

    assert after(9.9, 1) == []
    assert after(10.0, 1) == ["drain a"]
    assert after(15.9, 8) == []
    assert after(16.0, 8) == ["drain a"]
    assert after(59.9, 500) == []
    assert after(60.0, 500) == ["drain a"], "no longer than others may wait"


def test_what_queued_before_the_load_is_served_before_the_next_swap_until_the_other_is_due() -> None:
    def busy(oldest: float) -> ModelState:
        return model("a", 8, "loaded", running=1, loaded_at=NOW - 30, waiting=9, oldest_waiting_since=oldest)

    def other(waited: float) -> ModelState:
        return model("b", 8, waiting=1, oldest_waiting_since=NOW - waited)

    assert steps(busy(NOW - 40), other(35)) == []
    assert steps(busy(NOW - 40), other(45)) == ["drain a"], "the other queued before"
    assert steps(busy(NOW - 29), other(20)) == ["drain a"], "all that queued before the load are in"
    assert steps(busy(NOW - 90), other(60)) == ["drain a"], "due"


def test_a_drain_ends_when_it_is_in_vain() -> None:
    draining = model("a", 8, "draining", running=1)
    assert steps(draining, model("b", 8, waiting=1)) == []
    assert steps(draining, model("b", 8)) == ["resume a"]
    idle = model("c", 2, "loaded")
    assert steps(draining, idle, model("b", 2, waiting=1)) == ["resume a", "drain c", "unload c"]


def test_who_was_unloaded_for_another_is_not_loaded_before_it() -> None:
    unloaded = model("a", 8, waiting=100, oldest_waiting_since=NOW - 20, since=NOW, last_used=NOW - 0.5)
    assert steps(unloaded, model("b", 8, waiting=1, oldest_waiting_since=NOW - 10)) == ["load b"]


def test_while_one_loads_busy_ones_go_on() -> None:
    loading, waits = model("l", 1, "loading"), model("b", 8, waiting=1)
    assert steps(loading, model("a", 8, "loaded", running=1), waits) == []
    assert steps(loading, model("a", 8, "loaded"), waits) == ["drain a", "unload a"]


def test_a_small_one_is_not_loaded_into_the_room_of_one_that_is_due() -> None:
    busy = model("a", 6, "loaded", running=1, loaded_at=NOW - 5)
    small = model("s", 3, waiting=50)
    assert steps(busy, model("b", 8, waiting=1), small) == ["load s"]
    assert steps(busy, model("b", 8, waiting=1, oldest_waiting_since=NOW - 60), small) == []
    fits_beside = model("s", 2, waiting=50)
    assert steps(busy, model("b", 8, waiting=1, oldest_waiting_since=NOW - 60), fits_beside) == ["load s"]


def test_no_load_delays_one_whose_room_is_free_in_a_moment() -> None:
    waits, small = model("b", 8, waiting=9), model("s", 1, waiting=1)
    assert steps(model("a", 8, "unloading"), waits, small) == []
    assert steps(model("a", 8, "draining", running=1), waits, small) == ["load s"]


def test_an_idle_one_is_unloaded_after_its_time() -> None:
    def idle(**changes: Any) -> list[str]:
        return steps(model("a", 8, "loaded", **{"unload_after": 300.0, "last_used": NOW - 300, **changes}))

    assert idle() == ["drain a", "unload a"]
    assert idle(always=True) == ["drain a", "unload a"]
    assert idle(last_used=NOW - 299.9) == []
    assert idle(loaded_at=NOW - 10) == []
    assert idle(running=1) == []
    assert idle(waiting=1) == []
    assert idle(pinned=True) == []
    assert idle(unload_after=None) == []


@pytest.mark.parametrize("kept", [{"pinned": True}, {"always": True}, {}])
def test_an_operator_can_unload_any(kept: dict[str, bool]) -> None:
    assert steps(model("a", 8, "loaded", unload_requested=True, **kept)) == ["drain a", "unload a"]
    assert steps(model("a", 8, "loaded", unload_requested=True, running=1, waiting=2, **kept)) == ["drain a"]
    assert steps(model("a", 8, "draining", unload_requested=True, running=1, **kept)) == []
    assert steps(model("a", 8, "draining", unload_requested=True, **kept)) == ["unload a"]
    assert steps(model("a", 8, "loading", unload_requested=True, **kept)) == []


def test_what_failed_is_loaded_again_after_its_time_when_somebody_waits_and_holds_up_nobody() -> None:
    failed = model("a", 8, "failed", waiting=5, retry_at=NOW + 1)
    assert steps(failed) == []
    assert steps(failed, model("b", 8, waiting=1)) == ["load b"]
    assert steps(failed, now=NOW + 1) == ["load a"]
    assert steps(model("a", 8, "failed", retry_at=NOW)) == []


def test_what_can_never_fit_holds_up_nobody() -> None:
    never = model("a", 11, waiting=100, oldest_waiting_since=0.0)
    assert steps(never, model("b", 8, "loaded"), model("c", 2, waiting=1)) == ["load c"]
    assert not can_come(never, [], BUDGET)
    beside = model("a", 5, waiting=1)
    assert not can_come(beside, [beside, model("p", 6, "loaded", pinned=True)], BUDGET)
    assert can_come(beside, [beside, model("p", 6, pinned=True), model("q", 9, "loaded")], BUDGET)


def test_what_can_never_fit_does_not_count_in_the_order_of_turns() -> None:
    never = model("n", 11, waiting=1, oldest_waiting_since=0.0)
    many, few = model("a", 8, waiting=100, last_used=500), model("b", 8, waiting=1, last_used=400)
    assert steps(never, many, few) == ["load a"]


def test_for_one_waiting_model_at_a_time_others_leave() -> None:
    first, second = model("a", 5, "loaded"), model("b", 5, "loaded")
    assert steps(first, second, model("x", 5, waiting=2), model("y", 5, waiting=1)) == ["drain a", "unload a"]


def test_while_one_is_due_and_blocked_nobody_else_makes_others_leave() -> None:
    due = model("x", 8, waiting=1, oldest_waiting_since=NOW - 60)
    busy, idle = model("a", 4, "loaded", running=1, loaded_at=NOW), model("b", 6, "loaded")
    assert steps(busy, idle, due, model("y", 2, waiting=9)) == []
    assert steps(busy, idle, model("y", 2, waiting=9)) == ["drain b", "unload b"]
    beside = model("w", 3, "loaded")  # has not to leave for the one that is due
    due_later, busy_now = model("x", 6, waiting=1, oldest_waiting_since=NOW - 60), model("a", 5, "loaded", running=1)
    busy_now.loaded_at = NOW
    assert steps(busy_now, beside, due_later, model("y", 3, waiting=9)) == []
    assert steps(busy_now, beside, model("y", 3, waiting=9)) == ["drain w", "unload w"]
    assert steps(model("l", 4, "loading"), model("b", 4, "loaded"), due, model("y", 3, waiting=9)) == []
    assert steps(model("l", 4, "loading"), model("b", 4, "loaded"), model("y", 3, waiting=9)) == ["drain b", "unload b"]


def test_larger_than_planned_gives_memory_back_at_once() -> None:
    grown = model("a", 7, "loaded", running=3, loaded_at=NOW, last_used=NOW)
    assert steps(grown, model("b", 4, "loaded", last_used=10)) == ["drain b", "unload b"]
    assert steps(grown, model("b", 4, "loaded", running=1, loaded_at=NOW - 1)) == ["drain b"]
    assert steps(grown, model("b", 4, "loaded", always=True)) == ["drain a"]
    alone = model("a", 11, "loaded", running=1, loaded_at=NOW)
    assert steps(alone, model("b", 1, "loaded")) == ["drain a"], "others would leave in vain"
    assert steps(model("a", 11, "loaded", pinned=True)) == []


def test_main_memory_bounds_as_device_memory_does_and_what_is_unknown_does_not() -> None:
    both = Need(GIB, 6 * GIB)
    loaded = ModelState("a", both, Residency.LOADED)
    waits = ModelState("b", both, Residency.UNLOADED, waiting=1, oldest_waiting_since=NOW)
    assert steps(loaded, waits, budget=Budget(None, 10 * GIB)) == ["drain a", "unload a"]
    assert steps(loaded, waits, budget=Budget(None, None)) == ["load b"]


def test_reasons_name_the_other() -> None:
    busy = model("a", 8, "loaded", running=1)
    assert decide([busy, model("b", 8, waiting=1)], BUDGET, RULES, NOW) == [Action("drain", "a", "gives way to b")]
    assert decide([model("b", 8, waiting=2)], BUDGET, RULES, NOW) == [Action("load", "b", "2 waiting")]


def test_next_check_is_the_next_time_at_which_something_can_change() -> None:
    assert next_check([model("a", 8, "loaded", running=1)], RULES, NOW) is None
    assert next_check([model("a", 8, "loaded", unload_after=50.0, last_used=NOW - 20)], RULES, NOW) == NOW + 30
    assert next_check([model("a", 8, "failed", waiting=1, retry_at=NOW + 3)], RULES, NOW) == NOW + 3
    busy = model("a", 8, "loaded", running=1, loaded_at=NOW - 5, load_seconds=1)
    assert next_check([busy, model("b", 8, waiting=1, load_seconds=1)], RULES, NOW) == NOW + 5
    assert next_check([busy, model("b", 8, waiting=1, load_seconds=1)], RULES, NOW + 6) == NOW + 59


# --- whole schedules ---------------------------------------------------------------------------------------------


def _random_box(chance: random.Random) -> Simulation:
    """Two to six models that do not all fit, of which some fail to load or need more than planned."""
    engines = []
    for number in range(chance.randint(2, 6)):
        need = Need(chance.randint(1, 8), chance.choice([0, 0, chance.randint(1, 8)]))
        growth = chance.choice([0, 0, 0, 1, 2])
        load_seconds = chance.choice([0.2, 1.0, 5.0, 20.0])
        engines.append(
            Engine(
                ModelState(
                    f"m{number}",
                    need,
                    Residency.UNLOADED,
                    always=chance.random() < 0.1,
                    unload_after=chance.choice([None, None, 0.0, 3.0, 30.0]),
                    load_seconds=load_seconds * chance.choice([0.2, 1.0, 3.0]),
                ),
                slots=chance.randint(1, 4),
                real_need=Need(need.device + growth, need.host),
                real_load_seconds=load_seconds,
                unload_seconds=chance.choice([0.0, 0.1, 1.0]),
                failing_loads=chance.choice([0, 0, 0, 1, 3, 1000]),
            )
        )
    budget = Budget(chance.choice([8, 10, 12, None]), chance.choice([None, 10]))
    rules = Rules(
        max_age_seconds=chance.choice([1.0, 10.0, 60.0]), min_resident_seconds=chance.choice([0.0, 2.0, 10.0])
    )
    return Simulation(engines, budget, rules, chance)


ARRIVALS_END = 200.0
LONGEST_REQUEST = 10.0
MOST_OF_A_MODEL = 150


def _random_load(box: Simulation, chance: random.Random) -> int:
    """Each model gets a trickle, bursts or a flood of requests; some clients give up. Returns how many come."""
    total = 0
    for name, engine in box.engines.items():
        shortest = LONGEST_REQUEST / chance.choice([1, 3, 10])
        pause = chance.choice([0.8, 3.0, 30.0, 200.0]) * shortest / engine.slots
        time = chance.uniform(0, 50)
        come = 0
        while time < ARRIVALS_END and come < MOST_OF_A_MODEL:
            for _ in range(chance.choice([1, 1, 1, 8])):
                seconds = min(LONGEST_REQUEST, shortest * chance.uniform(0.5, 2))
                patience = chance.choice([None, None, None, chance.uniform(0.1, 60)])
                box.at(time, lambda name=name, s=seconds, p=patience: box.arrive(name, s, p))  # type: ignore[misc]
                come += 1
            time += chance.expovariate(1 / pause)
        total += come
        if chance.random() < 0.3:
            box.at(chance.uniform(0, ARRIVALS_END), lambda name=name: box.crash(name))  # type: ignore[misc]
        if chance.random() < 0.2:
            pinned_at = chance.uniform(0, ARRIVALS_END)
            box.at(pinned_at, lambda name=name: box.pin(name, pinned=True))  # type: ignore[misc]
            box.at(pinned_at + 50, lambda name=name: box.pin(name, pinned=False))  # type: ignore[misc]
        if chance.random() < 0.2:
            box.at(chance.uniform(0, ARRIVALS_END), lambda name=name: box.request_unload(name))  # type: ignore[misc]
    return total


def longest_wait(box: Simulation) -> float:
    """How long a model that can be loaded may wait for it: until it is due, then a turn of each, and its own.

    A turn is a load under way, what the model serves before it gives way, its longest request, its end, and its load.
    """
    loads = max(max(engine.real_load_seconds, engine.state.load_seconds) for engine in box.engines.values())
    unloads = max(engine.unload_seconds for engine in box.engines.values())
    serves = max(box.rules.min_resident_seconds, min(2 * loads, box.rules.max_age_seconds))
    turn = loads + serves + LONGEST_REQUEST + unloads + loads
    return box.rules.max_age_seconds + turn * (len(box.engines) + 1) + sum(BACKOFF_SECONDS)


@pytest.mark.parametrize("seed", range(250))
def test_schedules_keep_what_is_promised(seed: int) -> None:
    """The simulation checks each action and the memory after it; here, what is to be true of the whole."""
    chance = random.Random(seed)
    box = _random_box(chance)
    total = _random_load(box, chance)
    bound = longest_wait(box)
    box.at(ARRIVALS_END, box.heal)
    box.run(ARRIVALS_END * 30)
    assert box.longest_starving <= bound
    permanent = [engine.state for engine in box.engines.values() if engine.state.always]
    stuck = {
        engine.state.name
        for engine in box.engines.values()
        if engine.queue and can_come(engine.state, [*permanent, engine.state], box.budget)
    }
    assert not stuck, "requests that could be served are not"
    assert sum(len(engine.turns) for engine in box.engines.values()) <= total, "loads without a request of their own"
