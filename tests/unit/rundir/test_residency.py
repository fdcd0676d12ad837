"""What the gateway writes of its engines, and what others make of a file that is not its."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.rundir import residency
from llama_gguf.rundir.residency import EngineResidency
from llama_gguf.states import Residency


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "residency.json"
    engines = {"engine-a": EngineResidency(Residency.LOADED), "engine-b": EngineResidency(Residency.UNLOADED)}
    residency.write(engines, path)
    assert residency.read(path) == engines
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_an_engine_that_is_wanted_is_missed() -> None:
    wanted = [state for state in Residency if EngineResidency(state).wanted]
    assert wanted == [Residency.LOADED, Residency.DRAINING]


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"e": 1}', '{"e": {"x": 1}}', '{"e": {"state": 3}}'])
def test_another_file_is_no_residency(tmp_path: Path, text: str) -> None:
    path = tmp_path / "residency.json"
    path.write_text(text)
    assert residency.read(path) == {}
    assert residency.read(tmp_path / "missing.json") == {}
