"""How a plan is printed: `tests/unit/cli/commands/test_plan.py` has what is printed."""

from __future__ import annotations

from llama_gguf.cli.plan.view import columns, command_lines, human


def test_a_command_to_paste() -> None:
    lines = command_lines("/x y/llama-server", ("--model", "/a b.gguf", "--offline", "--spec-type", "a", "-np", "3"))
    assert lines == [
        "'/x y/llama-server' \\",
        "--model '/a b.gguf' \\",
        "--offline \\",
        "--spec-type a \\",
        "-np \\",
        "3",
    ]


def test_human() -> None:
    assert (human(3 << 20), human(30 << 30)) == ("3 MiB", "30.0 GiB")


def test_columns() -> None:
    assert columns([("a", "size", "x"), ("bcd", "1", "")], numbers=[1]) == ["a    size  x", "bcd     1"]
