"""Arguments of the operator's, compared with what llama-server lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_gguf.engine.checks.extra_args import extra_args_problems, unknown_arguments
from llama_gguf.engine.flags import Flag
from support.model_box import settings_for

FLAGS = tuple(
    Flag(tuple(flag["names"]), flag["value"], flag["variable"], flag["removed"])
    for flag in json.loads((Path(__file__).parents[4] / "schema/engine/flags.json").read_text())["flags"]
)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--cache-reuse", "256", "--no-repack"],
        ["--cache_reuse", "256"],
        ["--temp", "-0.5", "--seed", "-1"],
        ["--control-vector-layer-range", "1", "2", "--no-repack"],
        ["-ot", "exps=CPU", "--override-kv", "a=int:1"],
    ],
    ids=str,
)
def test_known_ones(args: list[str]) -> None:
    assert list(unknown_arguments(args, FLAGS)) == []


@pytest.mark.parametrize(
    ("args", "index", "code", "hint"),
    [
        (["--cache-resue", "256"], 0, "unknown-argument", "did you mean --cache-reuse?"),
        (["--no-repack", "--frobnicate", "1", "2"], 1, "unknown-argument", "see `llama-server --help`"),
        (["--cache-reuse=256"], 0, "unknown-argument", 'write two items: "--cache-reuse", "256"'),
        (["--no-repack", "true"], 1, "unknown-argument", "--no-repack takes no value"),
        (["--cache-reuse", "1", "2"], 2, "unknown-argument", "--cache-reuse takes one value"),
        (["--no-repack", "--cache-reuse"], 1, "argument-without-value", "write it as the next item"),
        (["--control-vector-layer-range", "1"], 0, "argument-without-value", "write it as the next item"),
        (["--draft-max", "8"], 0, "unknown-argument", "for what replaces it"),
        (["--no-mmap"], 0, "unknown-argument", 'replaced it by "--load-mode", "none"'),
        (["-"], 0, "unknown-argument", ""),
        ([""], 0, "unknown-argument", ""),
    ],
    ids=str,
)
def test_wrong_ones(args: list[str], index: int, code: str, hint: str) -> None:
    (problem,) = unknown_arguments(args, FLAGS)
    assert (problem.code, problem.path) == (code, f"engine.extra_args[{index}]")
    assert problem.message.startswith(f"{problem.path}: ")
    assert hint in problem.hint


def program(path: Path, script: str) -> Path:
    """Return a stand-in for llama-server that runs `script`."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_program_is_asked(tmp_path: Path) -> None:
    column = 40
    lines = "\n".join(f"{name:{column}}what it does" for name in ("-m,    --model FNAME", "--only-here N"))
    binary = program(tmp_path / "llama-server", f"[ \"$1\" = --help ] && echo '{lines}'")

    def told(*args: str) -> list[str]:
        settings = settings_for(tmp_path, {"name": "m"}, engine={"extra_args": list(args)})
        return [problem.code for problem in extra_args_problems(settings, binary, tmp_path, {})]

    assert told("--only-here", "1") == []
    assert told("--no-repack") == ["unknown-argument"]
    program(binary, "exit 1")
    assert told("--no-repack") == []  # why it fails is told when it is to serve
    for other in ("nothing to see", "--other N              is what another program has"):
        program(binary, f"echo '{other}'")
        assert told("--no-repack") == []  # nothing is known of its arguments
    program(binary, f"touch {tmp_path}/asked")
    assert told() == []
    assert not (tmp_path / "asked").exists()
