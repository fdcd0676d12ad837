"""Values that can be auto: known, given, and which of them are left to the plan; what checks make of them."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.settings import parse
from llama_gguf.settings.checks.table import check
from llama_gguf.settings.sections.engine import Engine
from llama_gguf.settings.sections.engine_parts.auto import automatic, given, known

ALL = dict.fromkeys(("context_per_slot", "slots", "batch_size", "cache_type_k", "cache_type_v"), "auto")


def test_what_is_known_and_given() -> None:
    assert known("auto") is None
    assert known(0) == given(0) == 0
    assert given("q8_0") == "q8_0"
    with pytest.raises(ValueError, match="auto"):
        given("auto")


def test_which_are_left_to_the_plan() -> None:
    assert automatic(Engine()) == ()
    assert automatic(Engine(gpu_layers="auto")) == (), "llama-server's own --fit chooses layers"
    assert set(automatic(Engine.model_validate(ALL))) == set(ALL)


def codes(engine: dict[str, Any], **sections: Any) -> set[str]:
    settings = parse({"model": {"path": "/m.gguf"}, "engine": engine, **sections})
    return {problem.code for problem in check(settings)}


@pytest.mark.parametrize(
    "engine",
    [
        ALL,
        ALL | {"task": "embed"},
        ALL | {"flash_attention": "off"},
        ALL | {"ubatch_size": 8192},
        {"slots": "auto", "batch_size": 1, "ubatch_size": 1},
        {"slots": 256, "batch_size": "auto"},
        {"context_per_slot": 16_777_216, "slots": "auto"},
        {"context_per_slot": "auto", "slots": 256},
        {"slots": "auto", "batch_size": 64, "ubatch_size": 64, "speculative": {"types": ["ngram-simple"]}},
        ALL | {"shrink": {"steps": ["slots", "context", "cache_type"]}},
    ],
)
def test_nothing_is_wrong_with_what_is_chosen_to_fit(engine: dict[str, Any]) -> None:
    assert codes(engine) - codes({}) == set()


def test_what_is_set_is_checked_all_the_same() -> None:
    assert "slots-over-batch" in codes({"slots": 100, "batch_size": 64, "ubatch_size": 64, "context_per_slot": "auto"})
    assert "in-flight-over-slots" in codes({"slots": 2, "context_per_slot": "auto"}, limits={"max_in_flight": 3})
