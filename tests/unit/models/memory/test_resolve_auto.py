"""What the plan chooses for settings that are auto, on roomy, tight and hopeless machines."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.memory.estimate import Weights
from llama_gguf.models.memory.plan import Machine, MemoryPlan, plan_memory
from llama_gguf.models.memory.resolve_auto import (
    Choice,
    ModelLimits,
    Resolved,
    layers_choice,
    resolve_auto,
    unresolved,
)
from llama_gguf.settings.sections.engine import Engine
from llama_gguf.settings.sections.engine_parts.auto import automatic
from support.sparse_model import Dimensions, write_sparse_model

GIB = 1 << 30
ALL: dict[str, Any] = dict.fromkeys(("batch_size", "cache_type_k", "cache_type_v", "context_per_slot", "slots"), "auto")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    path = write_sparse_model(tmp_path_factory.mktemp("m") / "l.gguf", "llama", Dimensions())
    header = read_header(path)
    return Weights(header.tensors, read_architecture(header))


def resolve(
    model: Weights, gib: float | None, host: float | None = None, limits: ModelLimits | None = None, **given: Any
) -> Resolved:
    machine = Machine(None if gib is None else int(gib * GIB), None if host is None else int(host * GIB))

    def plan(engine: Engine) -> MemoryPlan:
        return plan_memory(model, engine, machine)

    limits = limits or ModelLimits(model.architecture.trained_context)
    return resolve_auto(Engine.model_validate(given), limits, plan)


def reasons(found: Resolved) -> dict[str, str]:
    return {choice.setting: choice.reason for choice in found.choices}


def test_a_roomy_card_gives_everything(model: Weights) -> None:
    found = resolve(model, 400, **ALL)
    assert (found.engine.context_per_slot, found.engine.slots) == (131072, 16)
    assert (found.engine.gpu_layers, found.engine.cache_type_k, found.engine.batch_size) == ("auto", "f16", 2048)
    assert found.fits
    assert automatic(found.engine) == ()
    assert reasons(found) == {
        "batch_size": "the usual size fits",
        "cache_type_k": "full precision fits",
        "cache_type_v": "full precision fits",
        "context_per_slot": "what the model was trained for, for each slot",
        "slots": "the most that auto chooses, and they fit",
    }
    assert found.values == {name: getattr(found.engine, name) for name in ALL}


def test_a_tight_card_gives_the_most_that_fits(model: Weights) -> None:
    found = resolve(model, 16, **ALL)
    context = found.engine.context_per_slot
    assert isinstance(context, int)
    assert 4096 < context < 131072
    assert found.fits
    assert "the most that fits with one slot, of 131072" in reasons(found)["context_per_slot"]
    more = found.engine.model_copy(update={"context_per_slot": context + 256})
    assert plan_memory(model, found.engine, Machine(16 * GIB, None)).layers_on_device == 33
    assert plan_memory(model, more, Machine(16 * GIB, None)).layers_on_device < 33


def test_a_context_that_is_set_leaves_the_rest_to_slots(model: Weights) -> None:
    found = resolve(model, 12, slots="auto", context_per_slot=8192, gpu_layers="all")
    slots = found.engine.slots
    assert isinstance(slots, int)
    assert 1 < slots < 16
    assert found.choices == (Choice("slots", slots, "the most that fit with 8192 tokens each"),)
    one_more = found.engine.model_copy(update={"slots": slots + 1})
    assert plan_memory(model, one_more, Machine(12 * GIB, None)).verdict == "does not fit"


def test_smaller_caches_and_batches_only_where_they_are_needed_and_allowed(model: Weights) -> None:
    shrink = {"min_context_per_slot": 32768}
    needed = resolve(model, 8, **ALL, gpu_layers="all", shrink=shrink)
    assert needed.engine.cache_type_k == needed.engine.cache_type_v == "q8_0"
    assert (needed.engine.batch_size, needed.engine.ubatch_size) == (512, 256)
    assert int(needed.engine.context_per_slot) >= 32768
    assert "about half of full precision" in reasons(needed)["cache_type_k"]
    assert "MiB of compute buffers" in reasons(needed)["batch_size"]
    assert needed.values["ubatch_size"] == 256, "who passes the values on passes this one too"
    assert needed.fits
    kept = resolve(model, 8, context_per_slot="auto", gpu_layers="all", shrink=shrink, slots=1)
    assert (kept.engine.cache_type_k, kept.engine.ubatch_size) == ("f16", 512)
    assert not kept.fits
    assert kept.engine.context_per_slot == 32768, "never less than what is allowed"
    without = resolve(model, 8, **ALL, gpu_layers="all", shrink=shrink, flash_attention="off")
    assert (without.engine.cache_type_k, without.engine.cache_type_v) == ("q8_0", "f16")
    assert "without flash attention" in reasons(without)["cache_type_v"]
    odd = resolve(model, 8, limits=ModelLimits(131072, quantisable=False), **ALL, gpu_layers="all", shrink=shrink)
    assert (odd.engine.cache_type_k, odd.engine.cache_type_v) == ("f16", "f16")
    assert "cannot be quantised" in reasons(odd)["cache_type_k"]


def test_one_type_of_cache_alone_can_be_left_open(model: Weights) -> None:
    found = resolve(model, 7, cache_type_v="auto", context_per_slot=32768, slots=1, gpu_layers="all")
    assert (found.engine.cache_type_k, found.engine.cache_type_v) == ("f16", "q8_0")


def test_a_hopeless_card_has_the_least_and_says_so(model: Weights) -> None:
    found = resolve(model, 2, context_per_slot="auto", slots="auto", gpu_layers="all", shrink={"min_slots": 2})
    assert (found.engine.context_per_slot, found.engine.slots) == (2048, 2)
    assert not found.fits
    assert reasons(found) == {
        "context_per_slot": "the least that is allowed (engine.shrink.min_context_per_slot)",
        "slots": "the least that is allowed (engine.shrink.min_slots)",
    }


@pytest.mark.parametrize(("trained", "context"), [(0, 4096), (100, 100), (700, 512), (10**9, 16_777_216)])
def test_the_context_follows_the_model_whatever_it_says(model: Weights, trained: int, context: int) -> None:
    found = resolve(model, None, 10**6, limits=ModelLimits(trained), context_per_slot="auto", slots=1, gpu_layers=0)
    assert found.engine.context_per_slot == context


def test_all_slots_together_have_no_more_tokens_than_llama_cpp_counts(model: Weights) -> None:
    limits = ModelLimits(16_777_216)
    found = resolve(model, None, 10**7, limits=limits, context_per_slot="auto", slots=256, gpu_layers=0)
    assert int(found.engine.context_per_slot) * 256 < 2**31
    found = resolve(model, None, 10**7, context_per_slot=16_777_216, slots="auto", gpu_layers=0)
    assert int(found.engine.slots) * 16_777_216 < 2**31


def test_drafts_of_all_slots_fit_into_a_batch(model: Weights) -> None:
    """llama-server aborts when they do not: 65 tokens for each slot."""
    drafts: dict[str, Any] = {"types": ("ngram-mod",)}
    found = resolve(model, 400, slots="auto", batch_size=512, speculative=drafts)
    assert found.engine.slots == 7
    assert reasons(found)["slots"] == "the most that a batch has room for"
    found = resolve(model, 400, slots=64, batch_size="auto", speculative=drafts)
    assert found.engine.batch_size == 64 * 65
    found = resolve(model, 400, slots="auto", batch_size="auto", speculative={**drafts, "max_tokens": 500})
    assert int(found.engine.batch_size) >= int(found.engine.slots) * 501


def test_an_input_to_embed_fits_into_the_batch(model: Weights) -> None:
    found = resolve(model, 400, task="embed", batch_size="auto", context_per_slot=8192)
    assert found.engine.batch_size == 8192
    assert reasons(found)["batch_size"] == "as long as the context, so that an input is processed at once"
    both = resolve(model, 16, task="embed", batch_size="auto", context_per_slot="auto", slots=1)
    assert both.engine.batch_size == both.engine.context_per_slot
    whole = resolve(model, 400, task="embed", batch_size="auto", context_per_slot=0, slots=1)
    assert whole.engine.batch_size == 65_536


def test_a_machine_that_is_not_known_gives_the_least(model: Weights) -> None:
    found = resolve(model, None, **ALL)
    assert (found.engine.context_per_slot, found.engine.slots) == (2048, 1)
    assert set(reasons(found).values()) == {"the least, because the machine's memory is not known"}


def test_without_the_models_file_there_is_the_least() -> None:
    found = unresolved(Engine.model_validate(ALL))
    assert automatic(found.engine) == ()
    assert (found.engine.context_per_slot, found.engine.slots, found.engine.cache_type_k) == (2048, 1, "f16")
    assert set(reasons(found).values()) == {"the least; more if it fits, once the model's file is known"}


def test_layers_are_left_to_llama_server_and_told(model: Weights) -> None:
    def told(gib: float | None) -> Choice:
        return layers_choice(plan_memory(model, Engine(), Machine(None if gib is None else int(gib * GIB), None)))

    assert told(40) == Choice("gpu_layers", 33, "all fit on the GPU")
    assert told(None).reason == "the GPU's memory is not known"
    part = told(4)
    assert part.reason == "of 33, the most that fit on the GPU; the rest is slow"
    assert 0 < int(part.value) < 33


def test_what_is_set_is_never_touched(model: Weights) -> None:
    given: dict[str, Any] = {
        "slots": 3,
        "context_per_slot": 2048,
        "gpu_layers": 7,
        "cache_type_k": "q4_0",
        "batch_size": 1024,
    }
    found = resolve(model, 8, **given)
    assert found == Resolved(Engine.model_validate(given))
    assert found.choices == ()


def test_the_same_question_has_the_same_answer(model: Weights) -> None:
    assert resolve(model, 10, **ALL) == resolve(model, 10, **ALL)
