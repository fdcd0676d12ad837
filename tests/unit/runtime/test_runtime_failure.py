from __future__ import annotations

import stat
from pathlib import Path

import pytest

from llama_gguf.runtime.failure import Failure, read, render, write

FAILURE = Failure(
    "engine", None, "SIGKILL", "engine keeps crashing", "out of memory", "lower slots", ("a", "b"), 1.5, 69
)


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "failure.json"
    write(FAILURE, path)
    assert read(path) == FAILURE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"program": "x"}', '{"log_tail": [], "other": 1}'])
def test_unreadable_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "failure.json"
    assert read(path) is None
    path.write_text(text)
    assert read(path) is None


def test_rendered() -> None:
    assert render(FAILURE, Path("/run/engine.log")) == (
        "llama-gguf: engine keeps crashing\n"
        "  cause: out of memory\n"
        "  fix: lower slots\n"
        "  last output of engine (/run/engine.log):\n"
        "    a\n"
        "    b\n"
    )


def test_rendered_with_nothing_known() -> None:
    bare = Failure("a", 1, None, "a ended", "", "", (), 0.0)
    assert render(bare) == "llama-gguf: a ended\n"
    assert render(Failure("a", 1, None, "a ended", "", "", ("x",), 0.0)).splitlines()[1] == "  last output of a:"
