"""Golden pairs of `llama-gguf render`: a configuration and a command line, and the files or the errors it gives.

Each folder of tests/golden/render holds config.yaml, whose first line is the command, and what comes of it: the
files below expected/, and the messages in messages.txt. `UPDATE_GOLDEN=1` rewrites them; read the diff.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from llama_gguf.cli.commands.render import render
from llama_gguf.errors import ConfigError
from llama_gguf.settings.loading.load import InvalidConfigError
from llama_gguf.settings.messages.report import explain

CASES = sorted(path.parent for path in (Path(__file__).parent / "render").glob("*/config.yaml"))


def command_of(case: Path) -> list[str]:
    """Return the arguments that the first line of the case's configuration names."""
    first = (case / "config.yaml").read_text("utf-8").splitlines()[0]
    assert first.startswith("# llama-gguf render ")
    return shlex.split(first.removeprefix("# llama-gguf render "))


def rendered(case: Path, out: Path) -> str:
    """Render the case into `out` and return the messages; an error leaves `out` empty."""
    runner = CliRunner()
    result = runner.invoke(render, [*command_of(case), "config.yaml", "--out", str(out)], catch_exceptions=True)
    if isinstance(result.exception, ConfigError):
        text = result.exception.text if isinstance(result.exception, InvalidConfigError) else ""
        return explain(result.exception.problems, text) + "\n"
    assert result.exit_code == 0, result.output
    return result.stderr


def files_below(folder: Path) -> dict[str, str]:
    """Return every file below `folder` by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_text("utf-8") for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_renders_as_before(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case)
    messages = rendered(case, tmp_path)
    if os.environ.get("UPDATE_GOLDEN"):
        shutil.rmtree(case / "expected", ignore_errors=True)
        if any(tmp_path.iterdir()):
            shutil.copytree(tmp_path, case / "expected")
        (case / "messages.txt").write_text(messages, "utf-8")
    assert messages == (case / "messages.txt").read_text("utf-8")
    assert files_below(tmp_path) == files_below(case / "expected")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_bytes_every_time_and_from_any_environment(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(case)
    for name in ("PORT", "MODEL_NAME", "RUNPOD_ENDPOINT_ID", "LLAMA_GGUF__GATEWAY__PORT", "CTX"):
        monkeypatch.setenv(name, "7777")
    messages = rendered(case, tmp_path)
    assert messages == (case / "messages.txt").read_text("utf-8")
    assert files_below(tmp_path) == files_below(case / "expected")
