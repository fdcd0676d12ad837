"""engine_values: what is written is read, nonsense is not, and what was reduced replaces what was chosen."""

from __future__ import annotations

import json
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.rundir import engine_reduction
from llama_gguf.rundir.engine_reduction import EngineReduction
from llama_gguf.rundir.engine_values import ChosenValues, in_force, read, write
from llama_gguf.settings import RunDir

CHOSEN = ChosenValues({"slots": 8, "cache_type_k": "q8_0"}, {"slots": "they fit"}, fits=False)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "auto-engine.json"
    assert read(path) is None
    write(CHOSEN, path)
    assert read(path) == CHOSEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_in_force(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    assert in_force(run) == {}
    write(CHOSEN, run.engine_auto)
    assert in_force(run) == CHOSEN.values
    engine_reduction.write(EngineReduction({"slots": 4}, (6,), 7), run.engine_reduction)
    assert in_force(run) == {"slots": 4, "cache_type_k": "q8_0"}
    assert in_force(run.of_engine("engine-b")) == {}, "each engine has its own"
    run.engine_auto.unlink()
    assert in_force(run) == {"slots": 4}


@pytest.mark.parametrize(
    "changed",
    [
        {"values": {"binary": "/bin/sh"}},
        {"values": {"slots": "8"}},
        {"values": {"slots": True}},
        {"values": {"slots": 0}},
        {"values": {"slots": -1}},
        {"values": {"context_per_slot": 1.5}},
        {"values": {"cache_type_k": 8}},
        {"values": ["slots"]},
        {"reasons": {"slots": 8}},
        {"reasons": None},
        {"fits": "yes"},
        {"more": 1},
    ],
)
def test_nonsense_is_no_record(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(asdict(CHOSEN) | changed))
    assert read(path) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, "\udcff"])
def test_other_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, errors="surrogateescape")
    assert read(path) is None
