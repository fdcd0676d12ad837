"""The plan within 5 % of llama-server's own numbers: small models for every cache type, and all families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.family_models import FAMILIES
from support.memory_accuracy import Row, family_rows, small_row, small_settings, write_small_model

TOLERANCE = 0.05


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
