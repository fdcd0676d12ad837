"""`llama-gguf gen`: what is in schema/ is what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_gguf.cli.__main__ import run
from llama_gguf.cli.commands import gen
from llama_gguf.errors import ExitCode
from llama_gguf.settings.messages.codes import PROBLEM_CODES
from llama_gguf.settings.schema_tree import settings_shape

SCHEMA = Path(__file__).resolve().parents[4] / "schema"


@pytest.mark.engine
@pytest.mark.parametrize("name", gen.FILES)
def test_generated_file_is_fresh(name: str) -> None:
    text = dict(gen.generate())[name]
    assert (SCHEMA / name).read_text(encoding="utf-8") == text, "run `make gen`"


@pytest.mark.engine
def test_writing_and_checking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "schema"
    assert run(["gen", "--out", str(out), "--check"]) == 1
    assert "is stale: run `make gen`" in capsys.readouterr().err
    assert run(["gen", "--out", str(out)]) == 0
    assert run(["gen", "--out", str(out), "--check"]) == 0
    assert json.loads((out / "config.schema.json").read_text())["title"] == "llama-gguf configuration"
    capsys.readouterr()
    assert run(["gen", "--out", str(out)]) == 0
    assert "(as it was)" in capsys.readouterr().out


def test_reference_names_every_setting_code_and_exit_code() -> None:
    text = gen.reference()
    for leaf in settings_shape().leaves():
        assert f"| `{leaf.name}` |" in text
    for code in PROBLEM_CODES:
        assert f"| `{code}` |" in text
    for exit_code in ExitCode:
        assert f"| {int(exit_code)} | {exit_code.name} |" in text


def test_sections_come_from_functions_that_others_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gen, "SECTIONS", ("llama_gguf.cli.commands.gen:exit_codes_section",))
    assert gen.reference().count("\n## ") == 1


def test_table_cells_cannot_break_the_table() -> None:
    assert gen.table(("a", "b"), [("x", "y")]) == "| a | b |\n| --- | --- |\n| x | y |"
    assert "\\|" in gen.text("a|b\nc")
