"""explain: text like a compiler's, data for machines, and no secret in either."""

from __future__ import annotations

import pytest

from llama_gguf.errors import Problem
from llama_gguf.settings.messages.report import as_data, count, explain

TEXT = "model:\n  path: /m.gguf\ngateway:\n  prot: 8000\n"


def test_place_code_message_line_and_caret() -> None:
    problem = Problem(
        "unknown-key",
        "gateway.prot: no such setting",
        path="gateway.prot",
        source="config.yaml",
        line=4,
        column=3,
        end_column=7,
        hint='did you mean "port"?',
    )
    assert explain([problem], TEXT).splitlines() == [
        'config.yaml:4:3: error[unknown-key]: gateway.prot: no such setting; did you mean "port"?',
        "    4 |   prot: 8000",
        "      |   ^^^^",
    ]


def test_other_hints_stand_below() -> None:
    problem = Problem("x", "wrong", source="--set a", hint="do it so", severity="warning")
    assert explain([problem]).splitlines() == ["--set a: warning[x]: wrong", "      = help: do it so"]


def test_problem_without_place_belongs_to_the_configuration() -> None:
    assert explain([Problem("x", "wrong")]) == "configuration: error[x]: wrong"


@pytest.mark.parametrize("column", [1, 60, 195, 400])
def test_long_lines_are_cut_around_the_place(column: int) -> None:
    line = "k: " + "v" * 197
    shown, caret = explain([Problem("x", "m", source="f", line=1, column=column)], line).splitlines()[1:]
    assert len(shown) <= 110
    assert caret.index("^") <= len(shown)


def test_control_characters_do_not_reach_the_terminal() -> None:
    rendered = explain([Problem("x", "m", source="f", line=1, column=1)], "a: \x1b[31mred\x07\r\n")
    assert "\x1b" not in rendered
    assert "\x07" not in rendered
    assert "\r" not in rendered


def test_caret_never_leaves_the_line() -> None:
    rendered = explain([Problem("x", "m", source="f", line=1, column=3, end_column=90)], "a: b")
    assert rendered.splitlines()[-1].endswith("|   ^^")


def test_secret_in_the_line_is_masked() -> None:
    text = 'auth:\n  api_key: hunter2\nlimits: {store: "redis://:hunter2@valkey"}\nmodel: {token_env: hunter-2}\n'
    for line, path, code in ((2, "auth.api_key", "unknown-key"), (3, "limits.store", "secret-in-url")):
        rendered = explain([Problem(code, "m", path, "f", line, 3)], text)
        assert "hunter2" not in rendered
    one_line = explain([Problem("bad-value", "m", "model.token_env", "f", 1, 3)], "token_env: hunter-2")
    assert "hunter-2" not in one_line


def test_count() -> None:
    problems = [Problem("a", "m"), Problem("a", "m"), Problem("a", "m", severity="warning")]
    assert count(problems) == "2 errors, 1 warning"
    assert count(problems[2:]) == "1 warning"
    assert count([]) == ""


def test_data_has_every_field() -> None:
    (data,) = as_data([Problem("a", "m", "p", "s", 1, 2, 3, "h", "warning")])
    assert data == {
        "code": "a",
        "severity": "warning",
        "path": "p",
        "message": "m",
        "hint": "h",
        "source": "s",
        "line": 1,
        "column": 2,
        "end_column": 3,
    }
