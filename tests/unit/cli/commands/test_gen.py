"""`llama-gguf gen`: what is in schema/ is what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_gguf.cli.__main__ import run
from llama_gguf.cli.commands import gen

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
    assert "(unchanged)" in capsys.readouterr().out
