"""What the plan chooses for settings that are left to it, on roomy, tight and hopeless machines."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.memory.estimate import Weights
from llama_gguf.models.memory.plan import Machine, MemoryPlan, plan_memory
from llama_gguf.models.memory.resolve_auto import Automatic, Minima, Resolved, resolve_auto
from llama_gguf.settings.sections.engine import Engine
from support.sparse_model import Dimensions, write_sparse_model

GIB = 1 << 30
ALL: tuple[Automatic, ...] = ("gpu_layers", "batch_size", "cache_types", "context_per_slot", "slots")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    path = write_sparse_model(tmp_path_factory.mktemp("m") / "l.gguf", "llama", Dimensions())
    header = read_header(path)
    return Weights(header.tensors, read_architecture(header))


def resolve(
    model: Weights,
    gib: float | None,
    automatic: tuple[Automatic, ...] = ALL,
    minima: Minima | None = None,
    **given: Any,
) -> Resolved:
    machine = Machine(None if gib is None else int(gib * GIB), None)

    def plan(engine: Engine) -> MemoryPlan:
        return plan_memory(model, engine, machine)

    return resolve_auto(Engine.model_validate(given), automatic, model.architecture.trained_context, plan, minima)


def reasons(found: Resolved) -> dict[str, str]:
    return {choice.setting: choice.reason for choice in found.choices}


def test_a_roomy_card_gives_everything(model: Weights) -> None:
    found = resolve(model, 400)
    assert (found.engine.context_per_slot, found.engine.slots) == (131072, 16)
    assert (found.engine.gpu_layers, found.engine.cache_type_k, found.engine.batch_size) == (33, "f16", 2048)
    assert found.plan.verdict == "fits"
    assert reasons(found) == {
        "gpu_layers": "all fit on the GPU",
        "batch_size": "the usual size fits",
        "cache_types": "full precision fits",
        "context_per_slot": "what the model was trained for, for each slot",
        "slots": "as many as wanted",
    }


def test_a_tight_card_gives_the_most_that_fits(model: Weights) -> None:
    found = resolve(model, 16)
    assert found.engine.gpu_layers == 33
    assert 4096 < found.engine.context_per_slot < 131072
    assert found.plan.verdict == "fits"
    assert "the most that fits with one slot, of 131072" in reasons(found)["context_per_slot"]
    more = found.engine.model_copy(
        update={"context_per_slot": found.engine.context_per_slot + 256, "gpu_layers": "auto"}
    )
    assert plan_memory(model, more, Machine(16 * GIB, None)).layers_on_device < 33


def test_a_context_that_is_set_leaves_the_rest_to_slots(model: Weights) -> None:
    found = resolve(model, 12, ("slots",), context_per_slot=8192, gpu_layers="all")
    assert (found.engine.context_per_slot, found.engine.gpu_layers) == (8192, "all")
    assert 1 < found.engine.slots < 16
    assert reasons(found) == {"slots": "the most that fit with 8192 tokens each"}
    one_more = found.engine.model_copy(update={"slots": found.engine.slots + 1})
    assert plan_memory(model, one_more, Machine(12 * GIB, None)).verdict == "does not fit"


def test_smaller_caches_and_batches_only_where_they_are_needed_and_allowed(model: Weights) -> None:
    minima = Minima(context_per_slot=32768)
    needed = resolve(model, 8, ALL, minima, gpu_layers="all")
    assert needed.engine.cache_type_k == needed.engine.cache_type_v == "q8_0"
    assert needed.engine.ubatch_size == 256
    assert needed.engine.context_per_slot >= 32768
    assert "halves the KV cache" in reasons(needed)["cache_types"]
    assert "MiB of compute buffers" in reasons(needed)["batch_size"]
    assert needed.plan.verdict == "fits"
    kept = resolve(model, 8, ("context_per_slot",), minima, gpu_layers="all")
    assert (kept.engine.cache_type_k, kept.engine.ubatch_size) == ("f16", 512)
    assert kept.plan.verdict == "does not fit"
    assert kept.engine.context_per_slot == 32768, "never less than what is wanted"
    without = resolve(model, 8, ALL, minima, gpu_layers="all", flash_attention="off")
    assert without.engine.cache_type_v == "f16"
    assert "without flash attention" in reasons(without)["cache_types"]


def test_a_hopeless_card_has_the_least_and_says_so(model: Weights) -> None:
    found = resolve(model, 2, ("context_per_slot", "slots"), gpu_layers="all")
    assert (found.engine.context_per_slot, found.engine.slots) == (4096, 1)
    assert found.plan.verdict == "does not fit"
    assert set(reasons(found).values()) == {"the least that is wanted"}


def test_no_gpu_and_one_that_is_not_known(model: Weights) -> None:
    assert reasons(resolve(model, 0, ("gpu_layers",)))["gpu_layers"] == "there is no GPU"
    assert resolve(model, 0, ("gpu_layers",)).engine.gpu_layers == 0
    assert reasons(resolve(model, None, ("gpu_layers",)))["gpu_layers"] == "the GPU's memory is not known"
    part = resolve(model, 4, ("gpu_layers",))
    assert reasons(part)["gpu_layers"] == "of 33, the most that fit on the GPU; the rest is slow"
    assert 0 < int(part.engine.gpu_layers) < 33


def test_what_is_set_is_never_touched(model: Weights) -> None:
    given: dict[str, Any] = {
        "slots": 3,
        "context_per_slot": 2048,
        "gpu_layers": 7,
        "cache_type_k": "q4_0",
        "batch_size": 1024,
    }
    found = resolve(model, 8, (), **given)
    assert found.choices == ()
    assert found.engine == Engine.model_validate(given)


def test_the_same_question_has_the_same_answer(model: Weights) -> None:
    assert resolve(model, 10) == resolve(model, 10)
