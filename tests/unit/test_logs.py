"""Log lines: one event, one line, whatever the values hold."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from llama_gguf import logs

NASTY = "a\nb\x1b[31m\x7f\x85\u2028\x00é"


@pytest.fixture
def restored_root() -> Iterator[None]:
    """Give the root logger its handlers and level back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def emit(format: Literal["text", "json"], **values: object) -> str:  # noqa: A002 - the parameter's name in logs
    stream = io.StringIO()
    logs.configure("probe", format=format, level="info", stream=stream)
    logging.getLogger("x").info("something %s", "happened", extra=logs.fields(**values))
    logging.getLogger("x").debug("unheard")
    return stream.getvalue()


@pytest.mark.usefixtures("restored_root")
def test_a_json_line_is_one_line_and_reads_back() -> None:
    line = emit("json", value=NASTY, number=3)
    assert len(line.splitlines()) == 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line.rstrip("\n"))
    found = json.loads(line)
    assert (found["level"], found["program"], found["event"]) == ("info", "probe", "something happened")
    assert (found["value"], found["number"]) == (NASTY, 3)
    assert found["ts"].endswith("Z")


@pytest.mark.usefixtures("restored_root")
def test_a_text_line_is_one_line_with_control_characters_replaced() -> None:
    line = emit("text", value=NASTY)
    assert len(line.splitlines()) == 1
    assert line.rstrip("\n").endswith(" | INFO | probe | something happened | value=a?b?[31m????é")


@pytest.mark.usefixtures("restored_root")
@pytest.mark.parametrize("format", ["text", "json"])
def test_an_exception_is_told(format: Literal["text", "json"]) -> None:  # noqa: A002
    stream = io.StringIO()
    logs.configure("probe", format=format, level="error", stream=stream)
    try:
        int("why")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "ValueError: invalid literal" in stream.getvalue()


def test_last_words_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    logs.report_fatal("bad\nthing", "mend\x1b it")
    assert capsys.readouterr().err == "error: bad?thing\nhint: mend? it\n"
    logs.report_fatal("gone", "")
    assert capsys.readouterr().err == "error: gone\n"


STAMP = "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f'{STAMP} | INFO | up | configuration | settings={{"a": 1}}', f"{STAMP} | INFO | up | configuration"),
        (
            f"{STAMP} | INFO | engine | starting | binary=/x argv=['a', 'b'] z=1",
            f"{STAMP} | INFO | engine | starting | binary=/x",
        ),
        (f"{STAMP} | INFO | gateway | {'x' * 99}", f"{STAMP} | INFO | gateway | {'x' * 23}..."),
        (f"{STAMP} | WARNING | engine | {'x' * 99} | hint=[y]", f"{STAMP} | WARNING | engine | {'x' * 99} | hint=[y]"),
        (f"{STAMP} | ERROR | engine | {'x' * 99}", f"{STAMP} | ERROR | engine | {'x' * 99}"),
        (
            f"{STAMP} | ERROR | listener | giving up | {'x' * 99}",
            f"{STAMP} | ERROR | listener | giving up | {'x' * 9}...",
        ),
        (
            "0.00.000.001 I llama-server's own argv=[1] " + "x" * 99,
            "0.00.000.001 I llama-server's own argv=[1] " + "x" * 99,
        ),
        ("", ""),
    ],
)
def test_what_a_terminal_gets_of_a_line(line: str, shown: str) -> None:
    assert logs.shorten(line, 70) == shown


def test_our_lines_are_known_by_their_form() -> None:
    assert logs.is_own_line(f"{STAMP} | INFO | engine | x")
    assert logs.is_own_line("error: x")
    assert logs.is_own_line("hint: x")
    assert not logs.is_own_line("0.00.001.000 I srv: error: x")
    assert not logs.is_own_line("")
    assert not logs.is_own_line(f" {STAMP} | INFO | engine | x")


@pytest.mark.usefixtures("restored_root")
@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("nasty", ["\ud800", "\u202eabc", "x\n2026-01-02T03:04:05.678Z | ERROR | gateway | forged"])
def test_no_value_and_no_exception_forges_a_line_or_breaks_one(format: Literal["text", "json"], nasty: str) -> None:  # noqa: A002
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="utf-8")
    logs.configure("probe", format=format, level="error", stream=stream)
    try:
        raise ValueError(nasty)  # noqa: TRY301 - as a caller of ours would
    except ValueError:
        logging.getLogger("x").exception("failed %s", nasty, extra=logs.fields(path=nasty))
    stream.flush()
    lines = written.getvalue().decode().splitlines()
    assert [logs.is_own_line(line) for line in lines].count(True) == (1 if format == "text" else 0)
    assert all(line.isprintable() for line in lines)
    if format == "json":
        assert len(lines) == 1
