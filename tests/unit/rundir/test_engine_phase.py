"""The state file: whole at every moment, and not written more often than anyone looks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llama_gguf.rundir import engine_phase
from llama_gguf.rundir.engine_phase import EnginePhase, PhaseFile
from llama_gguf.rundir.notices import Notice
from llama_gguf.states import Phase


def test_phases_and_throttled_progress(tmp_path: Path) -> None:
    path, now = tmp_path / "engine.json", [100.0]
    state = PhaseFile(path, "tiny", clock=lambda: 1_700_000_000.5, tick=lambda: now[0])
    state.progress(1, 2)
    assert not path.exists()
    state.phase(Phase.DOWNLOADING, "o/n/f.gguf")
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
    record = engine_phase.read(path)
    assert record is not None
    assert record.as_data() == expected | {"warnings": ()}

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
    state.phase(Phase.STARTING, "m.gguf")
    assert json.loads(path.read_text()) == expected | {"phase": "starting", "detail": "m.gguf"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["engine.json"]


def test_warnings_stand_through_all_steps(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    state = PhaseFile(path, "tiny")
    state.warn(Notice("a", "first", "do this"))
    assert not path.exists()
    state.phase(Phase.RESOLVING, "x")
    state.warn(Notice("b", "second"))
    for phase in (Phase.DOWNLOADING, Phase.STARTING):
        state.phase(phase, "y")
        state.progress(1, 1)
        assert json.loads(path.read_text())["warnings"] == [
            {"code": "a", "message": "first", "hint": "do this"},
            {"code": "b", "message": "second", "hint": ""},
        ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("[]", None),
        ("{}", None),
        ('{"phase": 3}', None),
        ('{"phase": ["starting"]}', None),
        ('{"phase": "of another version"}', None),
        ('{"phase": "starting"}', EnginePhase(Phase.STARTING)),
        ('{"phase": "starting", "pid": "7", "since": [], "bytes_done": "1"}', EnginePhase(Phase.STARTING)),
        ('{"phase": "starting", "warnings": {"code": "a"}}', EnginePhase(Phase.STARTING)),
        (
            '{"phase": "starting", "warnings": [1, {"code": "a", "message": "m"}]}',
            EnginePhase(Phase.STARTING, warnings=(Notice("a", "m"),)),
        ),
        (
            '{"phase": "downloading", "model": "m", "detail": "d", "bytes_done": 1, "bytes_total": null, "pid": 3}',
            EnginePhase(Phase.DOWNLOADING, "m", "d", 1, None, pid=3),
        ),
    ],
)
def test_what_is_amiss_counts_as_left_out(tmp_path: Path, text: str | None, expected: EnginePhase | None) -> None:
    path = tmp_path / "engine.json"
    if text is not None:
        path.write_text(text)
    assert engine_phase.read(path) == expected
