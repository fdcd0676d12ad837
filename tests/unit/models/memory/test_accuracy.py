"""The plan within 5 % of llama-server's own numbers: small models for every cache type, and all families."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.inventory import all_tensors
from llama_gguf.models.memory.estimate import MIB, Weights
from llama_gguf.models.memory.plan import Machine, plan_memory
from llama_gguf.settings.sections.engine import Engine
from support.family_models import FAMILIES, write_family
from support.memory_accuracy import (
    FAMILY_SETTINGS,
    SMALL_ENGINE,
    Row,
    accuracy_rows,
    family_rows,
    planned,
    planned_columns,
    small_row,
    small_settings,
    table,
    write_small_model,
)
from support.memory_reports import running

TOLERANCE = 0.05
PAGE = Path(__file__).parents[4] / "docs" / "memory-accuracy.md"
SMALL, REAL = "a small llama", "SmolLM2 135M"


def compare(row: Row) -> None:
    rounding = 1.01 if row.rounded else 0.02
    assert row.planned_cache == pytest.approx(row.cache, rel=TOLERANCE, abs=rounding), row
    assert row.planned_compute == pytest.approx(row.compute, rel=TOLERANCE, abs=rounding), row


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("m") / "small.gguf")


@pytest.mark.engine
@pytest.mark.parametrize("settings", list(small_settings()), ids=lambda settings: settings[0])
def test_every_type_of_cache(
    engine_binary: Path, small: Path, tmp_path: Path, settings: tuple[str, dict[str, Any]]
) -> None:
    compare(small_row(engine_binary, small, "small", tmp_path, settings))


@pytest.mark.engine
@pytest.mark.parametrize("settings", list(small_settings())[::3], ids=lambda settings: settings[0])
def test_a_real_model(
    engine_binary: Path, starter_model: Path, tmp_path: Path, settings: tuple[str, dict[str, Any]]
) -> None:
    compare(small_row(engine_binary, starter_model, "starter", tmp_path, settings))


@pytest.mark.engine
def test_the_tests_own_models(engine_binary: Path, tiny_model: Path, tiny_rerank_model: Path, tmp_path: Path) -> None:
    for path in (tiny_model, tiny_rerank_model):
        for flash in ("on", "off"):
            compare(small_row(engine_binary, path, path.stem, tmp_path, (flash, {"flash_attention": flash})))


@pytest.mark.engine
@pytest.mark.parametrize("family", list(FAMILIES))
def test_families_at_their_published_sizes(engine_binary: Path, tmp_path: Path, family: str) -> None:
    for row in family_rows(engine_binary, tmp_path, family):
        compare(row)


@pytest.mark.engine
def test_multi_token_prediction_takes_a_context_of_its_own(engine_binary: Path, tmp_path: Path) -> None:
    model = write_family(tmp_path / "m.gguf", "GLM-4.5-Air")
    engine = Engine(extra_args=("--spec-type", "draft-mtp"))
    with running(engine_binary, model, tmp_path / "e.sock", engine) as lines:
        match = next(found for line in lines if (found := re.search(r"projected to use (\d+) MiB", line)))
    weights = Weights(all_tensors(model), read_architecture(read_header(model)))
    plans = {args: plan_memory(weights, Engine(extra_args=args), Machine(0, None)) for args in ((), engine.extra_args)}
    names = {"weights", "KV cache", "compute buffers", "multi-token prediction"}
    with_it, without = (
        sum(item.host for item in plans[args].items if item.name in names) / MIB for args in (engine.extra_args, ())
    )
    assert with_it == pytest.approx(int(match[1]), rel=0.01)
    assert with_it > without + 3000, "its weights are loaded only then"


@pytest.mark.slow
def test_the_page_has_what_the_plan_says(small: Path, starter_model: Path, tmp_path: Path) -> None:
    """Without an engine: its numbers are as they were when the page was made, ours have to be those of today."""
    models = {SMALL: small, REAL: starter_model}
    settings: dict[str, dict[str, Any]] = {**dict(small_settings()), **FAMILY_SETTINGS}
    rows = list(planned_columns(PAGE.read_text("utf-8")))
    assert {model for model, _, _ in rows} == {SMALL, REAL, *FAMILIES}
    for model, name, (cache, ours_cache, compute, ours_compute, _) in rows:
        if model not in models:
            models[model] = write_family(tmp_path / f"{len(models)}.gguf", model)
        small_one = model in (SMALL, REAL)
        values = SMALL_ENGINE | settings[name] if small_one else settings[name]
        found = planned(models[model], Engine.model_validate(values))
        digits = 2 if small_one else 0
        assert (ours_cache, ours_compute) == (f"{found[0]:.{digits}f}", f"{found[1]:.{digits}f}"), (model, name)
        assert found[0] == pytest.approx(float(cache), rel=TOLERANCE, abs=1.01)
        assert found[1] == pytest.approx(float(compute), rel=TOLERANCE, abs=0 if small_one else 1.01)


@pytest.mark.engine
@pytest.mark.skipif(not os.environ.get("UPDATE_GOLDEN"), reason="writes the page again, with UPDATE_GOLDEN=1")
def test_write_the_page(engine_binary: Path, small: Path, starter_model: Path, tmp_path: Path) -> None:
    head, start, _ = PAGE.read_text("utf-8").partition("| model |")
    assert start
    made = table(accuracy_rows(engine_binary, tmp_path, {SMALL: small, REAL: starter_model}))
    PAGE.write_text(head + made, "utf-8")
