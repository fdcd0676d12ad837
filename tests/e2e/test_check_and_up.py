"""What `check` refuses, the engine's program refuses in the same words, and llama-server without either.

The third is why there is a check at all: a rule that llama-server does not have would refuse what works.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.cli.__main__ import run
from llama_gguf.engine.argv import Host, build_argv
from llama_gguf.engine.binary import find_binary
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, locate, parse
from support.companion_files import write_adapter, write_part, write_projector
from support.tiny_encoder import write_tiny_encoder
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

GOOD: dict[str, Any] = {"context_per_slot": 256, "slots": 1}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a model and everything that can be mistaken for one."""
    folder = tmp_path_factory.mktemp("shelf")
    whole = write_tiny_model(folder / "tiny.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[:-1000])
    (folder / "page.gguf").write_text("<!DOCTYPE html><html><body>Sign in to continue</body></html>")
    (folder / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b'{"a":1}' + bytes(99))
    (folder / "unclosed.jinja").write_text("{% for m in messages %}{{ m.content }}")
    (folder / "crossed.jinja").write_text("{% for m in messages %}{% if m %}{% endfor %}{% endif %}")
    write_tiny_encoder(folder / "bert.gguf")
    write_adapter(folder / "adapter.gguf", "llama")
    write_adapter(folder / "foreign.gguf", "qwen3")
    write_projector(folder / "mmproj.gguf")
    write_part(folder / "s-00002-of-00002.gguf", 1, 2)
    return folder


@pytest.fixture(autouse=True)
def _on_the_shelf(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf)


Mistake = tuple[dict[str, Any], dict[str, Any], str]
"""`model`, `engine`, and a part of what is said of it."""
MISTAKES: dict[str, Mistake] = {
    "truncated": ({"path": "cut.gguf"}, {}, "is incomplete"),
    "a web page": ({"path": "page.gguf"}, {}, "is a web page"),
    "safetensors": ({"path": "weights.safetensors"}, {}, "is a safetensors file"),
    "a second part": ({"path": "s-00002-of-00002.gguf"}, {}, "is part 2 of 2"),
    "a projector as the model": ({"path": "mmproj.gguf"}, {}, "is a multimodal projector"),
    "an adapter as the model": ({"path": "adapter.gguf"}, {}, "is a LoRA adapter"),
    "a model as the projector": ({"path": "tiny.gguf", "mmproj": {"path": "tiny.gguf"}}, {}, "is a language model"),
    "a model as an adapter": ({"path": "tiny.gguf", "lora": [{"path": "tiny.gguf"}]}, {}, "is a language model"),
    "an adapter of another": ({"path": "tiny.gguf", "lora": [{"path": "foreign.gguf"}]}, {}, "for a qwen3 model"),
    "an encoder that is to chat": ({"path": "bert.gguf"}, {}, "is an encoder"),
    "an open template": ({"path": "tiny.gguf", "chat_template": "unclosed.jinja"}, {}, "has no {% endfor %}"),
    "a crossed template": ({"path": "tiny.gguf", "chat_template": "crossed.jinja"}, {}, "{% endfor %} closes {% if %}"),
    "an unknown argument": ({"path": "tiny.gguf"}, {"extra_args": ["--no-mmap"]}, "does not know the argument"),
    "no value": ({"path": "tiny.gguf"}, {"extra_args": ["--cache-reuse"]}, "lacks its value"),
}
DROPPED: dict[str, Mistake] = {
    "a draft of another": ({"path": "tiny.gguf", "draft": {"path": "bert.gguf"}}, {}, "has another vocabulary"),
}
"""llama-server starts without what is wrong here, and says so only in its log."""
IN_THE_FILE_ALONE: dict[str, Mistake] = {
    "slots over batch": (
        {"path": "tiny.gguf"},
        {"slots": 8, "batch_size": 4, "ubatch_size": 4},
        "8 slots are more than a batch of 4 tokens",
    ),
}
"""`up` refuses these when it reads the configuration, before there is an engine's program."""


def tree_of(mistake: Mistake, folder: Path, key: str = "") -> dict[str, Any]:
    """Return the configuration of a mistake, below `models.KEY` if there is a key."""
    model, engine, _ = mistake
    models = {"models": {key: model | {"engine": engine}}} if key else {"model": model}
    return models | {
        "paths": {"data_dir": str(folder / "data"), "run_dir": str(folder / "run")},
        "engine": GOOD if key else GOOD | engine,
        "auth": {"enabled": False},
        "gateway": {"host": "127.0.0.1"},
    }


def checked(tree: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `check` says of a configuration that it refuses."""
    file = folder / "config.yaml"
    file.write_text(json.dumps(tree, indent=1))
    assert run(["check", str(file)]) == 78
    return capsys.readouterr().err


def started(tree: dict[str, Any], program: str) -> tuple[int, str]:
    """Start the engine's program as supervisord does; return its exit code and its log."""
    settings = parse(tree)
    snapshot = Snapshot(settings=settings, locations=locate(settings, {}))
    own = snapshot.of_engine(program).locations.run
    own.root.mkdir(parents=True)
    own.engine_key.write_text("the-engines-key\n")
    snapshots.write(snapshot, snapshot.locations.run.snapshot)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "llama_gguf.engine", program],
        env=os.environ | {RUN_DIR_VARIABLE: str(own.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("key", ["", "chat"], ids=["model", "models.chat"])
@pytest.mark.parametrize("mistake", [*MISTAKES.values(), *DROPPED.values()], ids=[*MISTAKES, *DROPPED])
def test_check_and_the_engines_program_say_the_same(
    mistake: Mistake, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tree_of(mistake, tmp_path, key)
    told = checked(tree, tmp_path, capsys)
    code, log = started(tree, f"engine-{key}" if key else "engine")
    assert code == 78, log
    assert "Traceback" not in log
    (line,) = [line for line in log.splitlines() if line.startswith("error: ")]
    assert f": {line.removeprefix('error: ')}\n" in told
    assert mistake[2] in line
    assert line.startswith(f"error: models.{key}" if key else ("error: model", "error: engine"))


@contextmanager
def unchecked(mistake: Mistake, shelf: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run llama-server as if nothing had been checked; its log is in `folder`."""
    model, engine, _ = mistake
    settings = parse(tree_of(({"path": "tiny.gguf"}, engine, ""), folder))
    files = ModelFiles(
        shelf / model["path"],
        mmproj=shelf / model["mmproj"]["path"] if "mmproj" in model else None,
        draft=shelf / model["draft"]["path"] if "draft" in model else None,
        lora=tuple(LoraFile(shelf / one["path"]) for one in model.get("lora", ())),
        chat_template=shelf / model["chat_template"] if "chat_template" in model else None,
    )
    locations = locate(settings, {})
    locations.run.root.mkdir(parents=True)
    locations.run.engine_key.write_text("the-engines-key\n")
    argv = build_argv(settings, locations, files, Host(threads=1, gpu_backend=False))
    env = {"PATH": "/nonexistent"}  # without gdb, which llama-server would start for a stack trace
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [find_binary(settings, os.environ), *argv], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "mistake", [*MISTAKES.values(), *IN_THE_FILE_ALONE.values()], ids=[*MISTAKES, *IN_THE_FILE_ALONE]
)
def test_llama_server_would_have_failed(shelf: Path, tmp_path: Path, mistake: Mistake) -> None:
    with unchecked(mistake, shelf, tmp_path) as process:
        assert process.wait(60) != 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("mistake", DROPPED.values(), ids=DROPPED.keys())
def test_llama_server_would_have_gone_without(shelf: Path, tmp_path: Path, mistake: Mistake) -> None:
    with unchecked(mistake, shelf, tmp_path) as process:
        log, deadline = tmp_path / "log", time.monotonic() + 60
        while "vocabs are not compatible" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)


@pytest.mark.parametrize("mistake", IN_THE_FILE_ALONE.values(), ids=IN_THE_FILE_ALONE.keys())
def test_up_refuses_what_the_file_alone_shows(
    mistake: Mistake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = checked(tree_of(mistake, tmp_path), tmp_path, capsys)
    assert mistake[2] in told
    assert run(["up", "--config", str(tmp_path / "config.yaml")]) == 78
    assert capsys.readouterr().err.splitlines()[:3] == told.splitlines()[:3]
