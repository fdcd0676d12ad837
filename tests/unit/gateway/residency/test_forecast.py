"""How long a request waits for a model that is not loaded, and why one never can be."""

from __future__ import annotations

import math
from typing import Any

from llama_gguf.gateway.residency.forecast import expected_wait, impossible
from llama_gguf.gateway.residency.model_state import Budget, ModelState, Need, Rules
from llama_gguf.states import Residency

GIB = 1 << 30
RULES = Rules(max_age_seconds=60.0, min_resident_seconds=10.0, unload_seconds=1.0)
BUDGET = Budget(device=10 * GIB, host=None)
NOW = 1000.0


def model(name: str, gib: int, state: str = "unloaded", **changes: Any) -> ModelState:
    return ModelState(name, Need(gib * GIB, 0), Residency(state), **{"load_seconds": 4.0, **changes})


def wait(name: str, *models: ModelState) -> float:
    return expected_wait(models, BUDGET, RULES, name, NOW)


def test_nothing_for_a_loaded_one_and_the_rest_of_the_load_for_a_loading_one() -> None:
    assert wait("a", model("a", 8, "loaded")) == 0
    assert wait("a", model("a", 8, "loading", since=NOW - 1)) == 3
    assert wait("a", model("a", 8, "loading", since=NOW - 9)) == 0, "later than ever: any moment"


def test_its_own_load_and_that_under_way() -> None:
    assert wait("a", model("a", 2)) == 4
    assert wait("a", model("a", 2), model("b", 2, "loading", since=NOW - 1)) == 3 + 4


def test_the_loads_before_it() -> None:
    first = model("b", 2, waiting=5, oldest_waiting_since=NOW - 1, load_seconds=6.0)
    later = model("c", 2, waiting=1, oldest_waiting_since=NOW - 1, load_seconds=30.0)
    never = model("d", 11, waiting=99, oldest_waiting_since=NOW - 99)
    failed = model("e", 2, "failed", waiting=99, oldest_waiting_since=NOW - 99, retry_at=NOW + 50)
    assert wait("a", model("a", 2), first, later, never, failed) == 6 + 4


def test_what_is_loaded_serves_before_it_gives_way() -> None:
    assert wait("a", model("a", 8), model("b", 8, "loaded")) == 1 + 4
    assert wait("a", model("a", 8), model("b", 8, "loaded", running=1, loaded_at=NOW - 2)) == 8 + 1 + 4
    before = model("b", 8, waiting=5, oldest_waiting_since=NOW - 1)
    assert wait("a", model("a", 8), before) == 4 + 10 + 1 + 4
    assert wait("a", model("a", 8), model("b", 8, "loading", since=NOW)) == 4 + 10 + 1 + 4


def test_what_leaves_already_takes_no_room() -> None:
    assert wait("a", model("a", 8), model("b", 8, "unloading")) == 4
    assert wait("a", model("a", 8, "draining", running=1)) == 4


def test_a_failed_one_is_tried_again_after_its_time() -> None:
    assert wait("a", model("a", 8, "failed", retry_at=NOW + 7)) == 7 + 4


def test_infinite_where_it_never_comes() -> None:
    assert wait("a", model("a", 11)) == math.inf
    assert wait("a", model("a", 5), model("b", 6, "loaded", pinned=True)) == math.inf


def test_why_one_is_impossible() -> None:
    budget = Budget(24 * GIB, 8 * GIB)
    assert impossible(Need(24 * GIB, 8 * GIB), budget, []) is None
    assert impossible(Need(30 * GIB, 0), budget, []) == "it needs 30.0 GiB of GPU memory, the budget is 24.0 GiB"
    others = [
        model("chat", 20, always=True),
        model("embed", 1, pinned=True),
        model("shelf", 9),
        model("idle", 9, always=True, unload_after=60.0),
    ]
    assert impossible(Need(4 * GIB, 12 << 20), budget, others) == (
        "it needs 4096 MiB of GPU memory, the budget is 24.0 GiB, "
        "of which models that are never unloaded use 21.0 GiB (chat, embed)"
    )
    assert impossible(Need(4 * GIB, 12 << 20), budget, others, named=False) == (
        "it needs 4096 MiB of GPU memory, the budget is 24.0 GiB, of which models that are never unloaded use 21.0 GiB"
    )
    assert impossible(Need(3 * GIB, 9 * GIB), budget, others) == (
        "it needs 9216 MiB of main memory, the budget is 8192 MiB"
    )
