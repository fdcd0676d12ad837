"""What a terminal shows of the log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_gguf.runtime.screen import Screen, open_screen
from llama_gguf.settings.sections.logging import Logging
from support.terminal import terminal

LINE = "2026-01-01T00:00:00.000Z | INFO | engine | starting llama-server | binary=/x argv=['--host', 'y']"


@pytest.mark.parametrize(
    ("logging", "watched"),
    [({}, True), ({"level": "warning"}, True), ({"level": "debug"}, False), ({"format": "json"}, False)],
)
def test_whom_it_is_for(tmp_path: Path, logging: dict[str, str], watched: bool) -> None:
    with terminal(tmp_path / "screen", columns=90) as tty:
        found = open_screen(tty, Logging.model_validate(logging))
        assert (found is not None) is watched
        assert found is None or found.columns == 90
    with (tmp_path / "file").open("wb") as file:
        assert open_screen(file.fileno(), Logging.model_validate(logging)) is None


def test_llama_servers_own_lines_are_held_back_and_nobody_elses(tmp_path: Path) -> None:
    with terminal(tmp_path / "screen", columns=100) as tty:
        screen = Screen(tty)
        assert screen.render("engine", b"0.00.000.001 I load_model: loading") is None
        assert screen.render("engine", b"") is None
        assert screen.render("engine", b"\xff\x00 garbage") is None
        assert screen.render("engine", LINE.encode()) == LINE.partition(" argv=")[0].encode()
        assert screen.render("engine", b"error: the model is missing") == b"error: the model is missing"
        assert screen.render("gateway", b"Traceback \xff") == "Traceback \ufffd".encode()


@pytest.mark.parametrize(("columns", "used"), [(0, 80), (1, 40), (120, 120)])
def test_widths_that_terminals_report(tmp_path: Path, columns: int, used: int) -> None:
    with terminal(tmp_path / "screen", columns=columns) as tty:
        assert Screen(tty).columns == used


def test_a_terminal_that_has_gone(tmp_path: Path) -> None:
    with terminal(tmp_path / "screen", columns=100) as tty:
        copy = os.dup(tty)
    os.close(copy)
    assert Screen(copy).columns == 80
