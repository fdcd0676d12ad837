"""image/README.md is true: its render commands work, the files it names come of them, and its table is computed."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from llama_gguf.cli.commands.render import render
from llama_gguf.health.responses import PYWORKER_ERROR, PYWORKER_READY
from llama_gguf.platforms.container import FIRST_KEY_VARIABLE, MINIMUM_CUDA
from support.gpu_table import table
from support.rendering import ROOT

GUIDE = ROOT / "image/README.md"
TEXT = GUIDE.read_text("utf-8")
TABLE = re.compile(r"(<!-- table: tests/support/gpu_table\.py -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def commands() -> list[str]:
    """Return the lines after a prompt, continued lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").split(" #")[0] for line in lines if line.startswith("$ ")]


RENDERS = [command for command in commands() if command.startswith("llama-gguf render ")]


@pytest.mark.parametrize("command", RENDERS)
def test_render_command_works_and_makes_what_the_next_ones_use(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[2:]
    folder = words[words.index("--out") + 1]
    words[words.index("--out") + 1] = str(tmp_path / folder)
    result = CliRunner().invoke(render, words)
    assert result.exit_code == 0, result.output
    following = " ".join(commands()[commands().index(command) + 1 :][:3])
    for used in re.findall(rf"(?<![\w/]){folder}/[\w.-]+(?:/[\w.-]+)*", following):
        assert (tmp_path / used).exists() or used.endswith(".env"), used


def test_the_guide_has_a_command_for_each_platform() -> None:
    assert {command.split()[2] for command in RENDERS} == {"runpod", "vast", "compose", "kubernetes"}


def test_names_in_the_guide_are_those_of_the_code() -> None:
    for name in (FIRST_KEY_VARIABLE, PYWORKER_READY, PYWORKER_ERROR, *MINIMUM_CUDA):
        assert f"`{name}`" in TEXT or f"`{name}" in TEXT


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (GUIDE.parent / target).exists(), target


@pytest.mark.slow
def test_the_table_is_what_the_memory_plan_says() -> None:
    found = TABLE.search(TEXT)
    assert found
    made = table()
    if os.environ.get("UPDATE_GOLDEN"):
        GUIDE.write_text(TABLE.sub(lambda match: match[1] + made + match[3], TEXT), "utf-8")
    else:
        assert found[2] == made, "run this test with UPDATE_GOLDEN=1"
