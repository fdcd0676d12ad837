"""`llama-gguf config show` and `config env`."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import llama_gguf
from llama_gguf.cli.__main__ import run
from llama_gguf.cli.commands.config import variables
from llama_gguf.settings import parse
from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES, PLATFORM_VARIABLES
from llama_gguf.settings.schema_tree import settings_schema

TEXT = "model:\n  url: https://example.com/m.gguf?X-Amz-Signature=hunter2\nengine:\n  slots: 2\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a configuration; nothing else is set."""
    monkeypatch.chdir(tmp_path)
    for old in LEGACY_VARIABLES:
        monkeypatch.delenv(old.name, raising=False)
    Path("c.yaml").write_text(TEXT)
    return "c.yaml"


def test_show_is_a_configuration_again(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", file, "--set", "gateway.port=9000"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["gateway"]["port"] == 9000
    assert tree["engine"]["slots"] == 2
    assert "hunter2" not in json.dumps(tree)
    assert parse(tree).engine.flash_attention == "auto"


def test_show_with_origins(file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CTX", "1024")
    assert run(["config", "show", "--config", file, "--origin"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "slots: 2 # c.yaml:4" in lines
    assert "context_per_slot: 1024 # environment variable CTX" in lines
    assert "port: 8000 # default" in lines
    assert "url: https://example.com/m.gguf?X-Amz-Signature=*** # c.yaml:2" in lines


def test_show_only_what_is_changed_as_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", file, "--changed", "--origin", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["settings"]["engine"] == {"slots": 2}
    assert data["origins"] == {"model.url": "c.yaml:2", "engine.slots": "c.yaml:4"}
    assert run(["config", "show", file, "--changed", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == {"slots": 2}


def test_show_of_a_broken_file(file: str) -> None:
    assert run(["config", "show", file, "--set", "gateway.port=x"]) == 78


def test_env_lists_every_variable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "m.gguf")
    assert run(["config", "env"]) == 0
    out = capsys.readouterr().out
    for one in variables(settings_schema()):
        assert f" {one.name} " in out
    assert "* MODEL_NAME" in out


def test_env_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTX", "1")
    assert run(["config", "env", "--json", "--set-only"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"name": "CTX", "setting": "engine.context_per_slot", "kind": "old name", "set": True}.items() <= next(
        one for one in listed if one["name"] == "CTX"
    ).items()


def test_env_is_cut_to_the_width_of_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert run(["config", "env"]) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80


def test_every_variable_that_is_read_anywhere_is_listed() -> None:
    """Variables that code reads and no page lists were a defect of the old system."""
    listed = {variable.name for variable in PLATFORM_VARIABLES} | {old.name for old in LEGACY_VARIABLES}
    everywhere = {"HOME", "PATH", "SUPERVISOR_ENABLED"}  # the last is set by supervisord for its programs
    files = {file: ast.parse(file.read_text("utf-8")) for file in Path(llama_gguf.__file__).parent.rglob("*.py")}
    constants = {name: text for tree in files.values() for name, text in _constants(tree)}
    read = {
        (constants.get(name, name), file.name)
        for file, tree in files.items()
        for node in ast.walk(tree)
        for name in _names_read(node)
    }
    missing = {(name, where) for name, where in read if name not in listed | everywhere}
    assert not missing, "list these in settings/loading/known_variables.py"
    assert {"HF_HOME", "RUNPOD_ENDPOINT_ID"} <= {name for name, _ in read}


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for line in tree.body:
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str):
            yield from ((target.id, line.value.value) for target in line.targets if isinstance(target, ast.Name))


def _names_read(node: ast.AST) -> set[str]:
    """Return the names that `env.get("X")` and `env["X"]` read, and those of constants in the place of "X"."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "getenv"):
        owner, keys = node.func.value, node.args[:1]
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        owner, keys = node.value, [node.slice]
    else:
        return set()
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    if name not in ("env", "environ", "os"):
        return set()
    literals = {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return literals | {key.id for key in keys if isinstance(key, ast.Name) and key.id.isupper()}
