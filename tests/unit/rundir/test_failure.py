from __future__ import annotations

import json
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from llama_gguf.rundir.failure import Failure, read, render, write

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


@pytest.mark.parametrize("name", ["program", "summary", "cause", "fix"])
@pytest.mark.parametrize("value", [5, None, ["a"]])
def test_one_with_other_types_is_none(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "failure.json"
    path.write_text(json.dumps({**asdict(FAILURE), name: value}))
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


def test_what_cause_and_fix_say_is_not_said_again() -> None:
    words = ("error: port in use", "hint: free it") * 8
    told = render(
        Failure("gateway", 69, None, "it ended", "port in use", "free it", words, 0.0), Path("/run/gateway.log")
    )
    assert told.splitlines() == [
        "llama-gguf: it ended",
        "  cause: port in use",
        "  fix: free it",
        "  log of gateway: /run/gateway.log",
    ]


def test_it_fits_on_a_screen() -> None:
    cause = "this /a/path/" + "x" * 120 + " cannot be used, " + "for many reasons " * 12
    tail = tuple(f"line {number} {'y' * 300}" for number in range(40))
    told = render(Failure("engine", 1, None, "it ended", cause, "do " * 60, tail, 0.0), Path("/run/e.log"), columns=100)
    rows = told.splitlines()
    assert len(rows) <= 24
    assert rows[-1].startswith("    line 39 y")
    assert rows[-1].endswith("y...")
    assert max(len(row) for row in rows if "/a/path/" not in row) <= 100
    assert "/a/path/" + "x" * 120 in told  # to be copied, so whole
    assert " ".join(told.split()).count("for many reasons") == 12
    assert len(render(Failure("engine", 1, None, "it ended", cause, "", tail, 0.0)).splitlines()) <= 24


def test_what_stands_on_the_screen_is_not_repeated() -> None:
    def seen(program: str, line: str) -> bool:
        assert program == "engine"
        return line == "a"

    assert "    a\n" not in render(FAILURE, seen=seen)
    assert "    b\n" in render(FAILURE, seen=seen)
    assert (
        render(FAILURE, Path("/e.log"), seen=lambda _program, _line: True).splitlines()[-1] == "  log of engine: /e.log"
    )


def test_rendered_with_nothing_known() -> None:
    bare = Failure("a", 1, None, "a ended", "", "", (), 0.0)
    assert render(bare) == "llama-gguf: a ended\n"
    assert render(Failure("a", 1, None, "a ended", "", "", ("x",), 0.0)).splitlines()[1] == "  last output of a:"
