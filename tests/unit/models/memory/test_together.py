"""Which models fit at the same time: compared with trying every set, and as somebody whose models hardly fit."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.memory.estimate import Weights
from llama_gguf.models.memory.plan import Machine, MemoryPlan, plan_memory
from llama_gguf.models.memory.together import MemoryNeed, largest, need_of, sets_that_fit, total
from llama_gguf.settings.sections.engine import Engine
from support.sparse_model import Dimensions, write_sparse_model

GIB = 1 << 30


def test_needs_add_up_and_what_is_missing_is_told() -> None:
    assert total([]) == MemoryNeed()
    assert total([MemoryNeed(2, 3), MemoryNeed(5, 7)]) == MemoryNeed(7, 10)
    assert MemoryNeed(5, 7).missing(Machine(4, 10)) == MemoryNeed(1, 0)
    assert MemoryNeed(5, 7).missing(Machine(None, 1)) == MemoryNeed(0, 6)
    assert MemoryNeed(5, 7).fits(Machine(5, 7))
    assert MemoryNeed(5, 7).fits(Machine(None, None))
    assert not MemoryNeed(5, 7).fits(Machine(0, 7))


def test_sets_of_a_shelf() -> None:
    needs = {
        "chat": MemoryNeed(16 * GIB),
        "code": MemoryNeed(14 * GIB),
        "embed": MemoryNeed(GIB),
        "rerank": MemoryNeed(2 * GIB),
    }
    card = Machine(24 * GIB, None)
    assert sets_that_fit(needs, card) == (("chat", "embed", "rerank"), ("code", "embed", "rerank"))
    assert sets_that_fit(needs, card, ["chat"]) == (("chat", "embed", "rerank"),)
    assert sets_that_fit(needs, card, ["chat", "code"]) == ()
    assert sets_that_fit(needs, Machine(80 * GIB, None)) == (("chat", "code", "embed", "rerank"),)
    assert sets_that_fit(needs, Machine(GIB // 2, None)) == ((),)
    assert sets_that_fit({}, card) == ((),)


def brute_force(needs: dict[str, MemoryNeed], machine: Machine, always: list[str]) -> set[frozenset[str]]:
    every = [frozenset(some) for size in range(len(needs) + 1) for some in combinations(needs, size)]
    fitting = [some for some in every if set(always) <= some and total(needs[name] for name in some).fits(machine)]
    return {some for some in fitting if not any(some < other for other in fitting)}


@pytest.mark.parametrize("seed", range(40))
def test_the_same_as_trying_every_set(seed: int) -> None:
    source = random.Random(seed)
    needs = {
        f"m{index}": MemoryNeed(source.randint(0, 20), source.randint(0, 20)) for index in range(source.randint(1, 8))
    }
    machine = Machine(source.choice([None, 0, 30, 45]), source.choice([None, 25, 60]))
    always = [name for name in needs if source.random() < 0.15]
    found = sets_that_fit(needs, machine, always)
    assert {frozenset(names) for names in found} == brute_force(needs, machine, always)
    assert [len(names) for names in found] == sorted((len(names) for names in found), reverse=True)


def test_a_shelf_of_very_many_models_has_an_answer_all_the_same() -> None:
    needs = {f"m{index}": MemoryNeed(GIB + index) for index in range(200)}
    found = sets_that_fit(needs, Machine(40 * GIB, None))
    assert 0 < len(found) <= 64
    assert all(total(needs[name] for name in names).fits(Machine(40 * GIB, None)) for names in found)
    assert len(found[0]) == 39


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    path = write_sparse_model(tmp_path_factory.mktemp("m") / "l.gguf", "llama", Dimensions())
    header = read_header(path)
    return Weights(header.tensors, read_architecture(header))


@pytest.mark.parametrize("layers", ["auto", "all"])
def test_the_largest_value_fits_and_one_more_does_not(model: Weights, layers: str) -> None:
    machine = Machine(12 * GIB, None)

    def plan(engine: Engine) -> MemoryPlan:
        return plan_memory(model, engine, machine)

    engine = Engine.model_validate({"gpu_layers": layers})
    context = largest(plan, engine, "context_per_slot", 131072)
    slots = largest(plan, engine, "slots", 256)
    assert 0 < context < 131072
    assert context % 256 == 0
    assert 1 < slots < 256
    for change in ({"context_per_slot": context}, {"slots": slots}):
        found = plan(engine.model_copy(update=change))
        assert (found.verdict, found.layers_on_device) == ("fits", 33)
        assert need_of(found).fits(machine)
    for change in ({"context_per_slot": context + 256}, {"slots": slots + 1}):
        found = plan(engine.model_copy(update=change))
        assert found.verdict == "does not fit" or found.layers_on_device < 33
    assert largest(lambda some: plan_memory(model, some, Machine(GIB, None)), Engine(gpu_layers="all"), "slots", 9) == 0
    assert largest(lambda some: plan_memory(model, some, Machine(80 * GIB, None)), engine, "slots", 9) == 9
