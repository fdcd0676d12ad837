from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.engine_variant import (
    QUERY_PID,
    EngineVariant,
    Rejected,
    apply_exits,
    is_mitigated,
    reject,
    summary,
)
from llama_gguf.rundir.exits import ExitStatus, ProcessExit

SIGILL, SIGSEGV = ExitStatus(None, "SIGILL"), ExitStatus(None, "SIGSEGV")
RUNS = EngineVariant("zen4", 70, "z" * 64, "cpu", lower=("haswell", "x64"), rejected=(Rejected("icelake", "i", 60),))


def test_an_illegal_instruction_of_that_very_process_rejects_its_variant() -> None:
    after = apply_exits(RUNS, [ProcessExit(60, SIGILL), ProcessExit(70, SIGILL)])
    assert after.rejected == (Rejected("icelake", "i", 60), Rejected("zen4", "z" * 64, 70))
    assert (after.variant, after.pid, after.lower, after.cpu) == ("", 0, (), "cpu")


@pytest.mark.parametrize(
    ("record", "history"),
    [
        (RUNS, []),
        (RUNS, [ProcessExit(70, SIGSEGV)]),
        (RUNS, [ProcessExit(70, ExitStatus(1, None))]),
        (RUNS, [ProcessExit(60, SIGILL)]),  # another process
        (RUNS, [ProcessExit(0, SIGILL)]),  # nobody knows which
        (
            RUNS,
            [ProcessExit(70, SIGILL), ProcessExit(70, SIGSEGV)],
        ),  # the pid was reused, and this is the later process
        (replace(RUNS, pid=0, variant=""), [ProcessExit(0, SIGILL)]),
        (replace(RUNS, pinned=True), [ProcessExit(70, SIGILL)]),
        (replace(RUNS, lower=()), [ProcessExit(70, SIGILL)]),
        (EngineVariant(), [ProcessExit(0, SIGILL)]),
    ],
)
def test_nothing_else_rejects_it(record: EngineVariant, history: list[ProcessExit]) -> None:
    after = apply_exits(record, history)
    assert after.rejected == record.rejected
    assert (after.variant, after.pid) == ("", 0)


def test_healed_on_both_sides_of_the_next_start() -> None:
    end = ProcessExit(70, SIGILL)
    assert is_mitigated(RUNS, end)
    after = apply_exits(RUNS, [end])
    assert is_mitigated(after, end)
    assert is_mitigated(replace(after, variant="haswell", pid=71), end)


@pytest.mark.parametrize(
    ("record", "end"),
    [
        (None, ProcessExit(70, SIGILL)),
        (RUNS, ProcessExit(70, SIGSEGV)),
        (RUNS, ProcessExit(71, SIGILL)),
        (RUNS, ProcessExit(0, SIGILL)),
        (replace(RUNS, lower=()), ProcessExit(70, SIGILL)),
        (replace(RUNS, pinned=True), ProcessExit(70, SIGILL)),
        (replace(RUNS, rejected=(Rejected("old", "o", 0), Rejected("asked", "a", QUERY_PID))), ProcessExit(0, SIGILL)),
        # rejected by a question that this process asked, and now its last variant crashes too
        (replace(reject(RUNS, QUERY_PID), variant="x64", lower=()), ProcessExit(70, SIGILL)),
    ],
)
def test_not_healed(record: EngineVariant | None, end: ProcessExit) -> None:
    assert not is_mitigated(record, end)


def test_what_is_shown() -> None:
    assert summary(None) is None
    assert summary(EngineVariant()) is None
    assert summary(RUNS) == {"name": "zen4", "pinned": False, "rejected": ["icelake"]}
    assert summary(apply_exits(RUNS, [])) == {"name": None, "pinned": False, "rejected": ["icelake"]}


def test_written_privately_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    engine_variant.write(RUNS, path)
    assert engine_variant.read(path) == RUNS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.json"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "1", '{"rejected": [1], "lower": []}', '{"rejected": [], "x": 1}', "[" * 100_000),
        '{"rejected": [{"variant": []}], "lower": [], "variant": "x64"}',
        '{"rejected": [], "lower": [{}], "variant": "x64"}',
        '{"rejected": [], "lower": [], "variant": 5}',
        '{"rejected": [], "lower": [], "pid": "70"}',
    ],
)
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "v.json"
    assert engine_variant.read(path) is None
    path.write_text(text)
    assert engine_variant.read(path) is None
