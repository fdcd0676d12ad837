"""The listener's memory: whole, each event once, and none where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.rundir.crashes import Crash, CrashFile


def test_the_file_remembers_and_counts_an_event_once(tmp_path: Path) -> None:
    file = CrashFile(tmp_path / "crashes.json")
    assert file.read() == []
    first = Crash("engine", 7, 1.0, None, "SIGKILL")
    assert file.add(first) == [first]
    assert file.add(Crash("engine", 7, 2.0, None, "SIGKILL")) == [first]
    second = Crash("gateway", 7, 3.0, 1, None)
    assert CrashFile(tmp_path / "crashes.json").add(second) == [first, second]
    assert file.read() == [first, second]


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[{"program": "a"}]'])
def test_a_damaged_file_holds_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text)
    assert CrashFile(tmp_path / "c").read() == []
