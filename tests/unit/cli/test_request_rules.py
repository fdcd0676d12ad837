"""Rules of requests that could never have an effect are found where they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.cli.__main__ import run
from llama_gguf.cli.request_rules import refuse_wrong_rules, rule_problems
from llama_gguf.settings.loading.load import InvalidConfigError, Loaded, loads

FILE = Path("config.yaml")
TEXT = """\
models:
  a:
    path: /a.gguf
    defaults:
      temperatur: 0.7
      top_p: 3
      messages: []
    strip: [seed, sead]
    variants:
      cold:
        defaults: {temperature: hot, seed: 1}
  b: {path: /b.gguf, defaults: {temperature: 0.5}, strip: [logit_bias]}
"""


def read(text: str) -> Loaded:
    return loads(text, FILE, {})


def test_each_wrong_one_has_its_place() -> None:
    found = rule_problems(read(TEXT))
    assert [(one.code, one.path, one.line) for one in found] == [
        ("bad-parameter", "models.a.defaults.temperatur", 5),
        ("bad-parameter", "models.a.defaults.top_p", 6),
        ("bad-parameter", "models.a.defaults.messages", 7),
        ("bad-parameter", "models.a.strip[1]", 8),
        ("bad-parameter", "models.a.variants.cold.defaults.temperature", 11),
    ]
    assert "did you mean temperature?" in found[0].message


@pytest.mark.parametrize("text", ["model: {path: /a.gguf}", "model: {path: /a.gguf, defaults: {min_p: 0.1}}"])
def test_right_ones_are_right(text: str) -> None:
    refuse_wrong_rules(read(text))
    assert rule_problems(read(text)) == ()


def test_neither_check_nor_up_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model:\n  path: /a.gguf\n  defaults: {temperatur: 1}\n")
    with pytest.raises(InvalidConfigError):
        refuse_wrong_rules(loads(file.read_text(), file, {}))
    assert run(["check", str(file), "--no-files"]) == 78
    assert f"{file}:3:26: error[bad-parameter]: model.defaults: no route" in capsys.readouterr().err
    assert run(["up", "--config", str(file)]) == 78
    assert "error[bad-parameter]" in capsys.readouterr().err
