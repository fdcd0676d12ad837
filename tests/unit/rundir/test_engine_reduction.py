"""engine_reduction: what is written is read, nonsense is not, and which exits the next start avoids."""

from __future__ import annotations

import json
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.rundir.engine_reduction import EngineReduction, Memory, is_mitigated, read, write
from llama_gguf.rundir.exits import ExitStatus, ProcessExit

RUNS = EngineReduction({"slots": 2, "cache_type_k": "q8_0"}, (6, 7), 8, ("device", "host"), 33, quantisable=False)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert read(path) is None
    write(RUNS, path)
    assert read(path) == RUNS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "changed",
    [
        {"values": {"binary": "/bin/sh"}},
        {"values": {"slots": "2"}},
        {"values": {"slots": True}},
        {"values": {"cache_type_k": 8}},
        {"values": ["slots"]},
        {"after": 7},
        {"after": ["7"]},
        {"pid": "8"},
        {"layers": None},
        {"left": None},
        {"more": 1},
    ],
)
def test_nonsense_is_no_record(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(asdict(RUNS) | changed))
    assert read(path) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_other_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    assert read(tmp_path / "r.json") is None


@pytest.mark.parametrize(
    ("record", "pid", "failed", "expected"),
    [
        (RUNS, 8, "device", True),
        (RUNS, 8, None, False),
        (replace(RUNS, left=("device",)), 8, "host", False),
        (RUNS, 7, None, True),  # the next start has evaluated it already
        (RUNS, 9, "device", False),
        (RUNS, 0, "device", False),
        (EngineReduction(), 0, "device", False),
        (None, 8, "device", False),
    ],
)
def test_which_exits_do_not_count(
    record: EngineReduction | None, pid: int, failed: Memory | None, *, expected: bool
) -> None:
    assert is_mitigated(record, ProcessExit(pid, ExitStatus(1, None)), failed) is expected
