"""The state file: whole at every moment, and not written more often than anyone looks."""

from __future__ import annotations

import json
import os
from pathlib import Path

from llama_gguf.engine.state import StateFile
from llama_gguf.rundir.notices import Notice


def test_phases_and_throttled_progress(tmp_path: Path) -> None:
    path, now = tmp_path / "engine.json", [100.0]
    state = StateFile(path, "tiny", clock=lambda: 1_700_000_000.5, tick=lambda: now[0])
    state.progress(1, 2)
    assert not path.exists()
    state.phase("downloading", "o/n/f.gguf")
    expected: dict[str, object] = {
        "phase": "downloading",
        "model": "tiny",
        "detail": "o/n/f.gguf",
        "bytes_done": None,
        "bytes_total": None,
        "since": 1_700_000_000.5,
        "pid": os.getpid(),
        "warnings": [],
    }
    assert json.loads(path.read_text()) == expected
    assert path.stat().st_mode & 0o777 == 0o600

    def done() -> object:
        return json.loads(path.read_text())["bytes_done"]

    state.progress(0, 100)  # the first of a step is told at once: it brings the total
    assert done() == 0
    state.progress(10, 100)
    assert done() == 0
    now[0] += 0.6
    state.progress(20, 100)
    assert done() == 20
    state.progress(30, 100)
    assert done() == 20
    state.progress(100, 100)  # the end is always told
    assert done() == 100
    now[0] += 0.6
    state.progress(5, None)
    assert json.loads(path.read_text())["bytes_total"] is None
    state.phase("exec", "m.gguf")
    assert json.loads(path.read_text()) == expected | {"phase": "exec", "detail": "m.gguf"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.json"]


def test_warnings_stand_through_all_steps(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    state = StateFile(path, "tiny")
    state.warn(Notice("a", "first", "do this"))
    assert not path.exists()
    state.phase("resolving", "x")
    state.warn(Notice("b", "second"))
    for phase in ("downloading", "exec"):
        state.phase(phase, "y")
        state.progress(1, 1)
        assert json.loads(path.read_text())["warnings"] == [
            {"code": "a", "message": "first", "hint": "do this"},
            {"code": "b", "message": "second", "hint": ""},
        ]
