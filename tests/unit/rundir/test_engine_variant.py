from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.engine_variant import ASKED, EngineVariant, Rejected, is_healed, reject, settle, summary
from llama_gguf.rundir.exits import End, Exit

SIGILL, SIGSEGV = Exit(None, "SIGILL"), Exit(None, "SIGSEGV")
RUNS = EngineVariant("zen4", 70, "z" * 64, "cpu", lower=("haswell", "x64"), rejected=(Rejected("icelake", "i", 60),))


def test_an_illegal_instruction_of_that_very_process_rejects_its_variant() -> None:
    after = settle(RUNS, [End(60, SIGILL), End(70, SIGILL)])
    assert after.rejected == (Rejected("icelake", "i", 60), Rejected("zen4", "z" * 64, 70))
    assert (after.variant, after.pid, after.lower, after.cpu) == ("", 0, (), "cpu")


@pytest.mark.parametrize(
    ("record", "history"),
    [
        (RUNS, []),
        (RUNS, [End(70, SIGSEGV)]),
        (RUNS, [End(70, Exit(1, None))]),
        (RUNS, [End(60, SIGILL)]),  # another process
        (RUNS, [End(0, SIGILL)]),  # nobody knows which
        (RUNS, [End(70, SIGILL), End(70, SIGSEGV)]),  # the pid was given out twice, and this is the later one
        (replace(RUNS, pid=0, variant=""), [End(0, SIGILL)]),
        (replace(RUNS, pinned=True), [End(70, SIGILL)]),
        (replace(RUNS, lower=()), [End(70, SIGILL)]),
        (EngineVariant(), [End(0, SIGILL)]),
    ],
)
def test_nothing_else_rejects_it(record: EngineVariant, history: list[End]) -> None:
    after = settle(record, history)
    assert after.rejected == record.rejected
    assert (after.variant, after.pid) == ("", 0)


def test_healed_on_both_sides_of_the_next_start() -> None:
    end = End(70, SIGILL)
    assert is_healed(RUNS, end)
    after = settle(RUNS, [end])
    assert is_healed(after, end)
    assert is_healed(replace(after, variant="haswell", pid=71), end)


@pytest.mark.parametrize(
    ("record", "end"),
    [
        (None, End(70, SIGILL)),
        (RUNS, End(70, SIGSEGV)),
        (RUNS, End(71, SIGILL)),
        (RUNS, End(0, SIGILL)),
        (replace(RUNS, lower=()), End(70, SIGILL)),
        (replace(RUNS, pinned=True), End(70, SIGILL)),
        (replace(RUNS, rejected=(Rejected("old", "o", 0), Rejected("asked", "a", ASKED))), End(0, SIGILL)),
        # rejected by a question that this process asked, and now its last variant crashes too
        (replace(reject(RUNS, ASKED), variant="x64", lower=()), End(70, SIGILL)),
    ],
)
def test_not_healed(record: EngineVariant | None, end: End) -> None:
    assert not is_healed(record, end)


def test_what_is_shown() -> None:
    assert summary(None) is None
    assert summary(EngineVariant()) is None
    assert summary(RUNS) == {"name": "zen4", "pinned": False, "rejected": ["icelake"]}
    assert summary(settle(RUNS, [])) == {"name": None, "pinned": False, "rejected": ["icelake"]}


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
