"""file_checks: what the settings name on this machine, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.errors import Problem
from llama_gguf.settings import locate, parse
from llama_gguf.settings.checks.machine import check_engine_files, check_files, variable_problems


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a data directory with a private keys file."""
    (tmp_path / "models").mkdir()
    keys = tmp_path / "keys.json"
    keys.write_text("{}")
    keys.chmod(0o600)
    return tmp_path


def found(home: Path, settings: dict[str, Any], env: Mapping[str, str] | None = None) -> list[Problem]:
    """Return the problems of `settings` in the data directory `home`."""
    whole = parse(
        {"model": {"name": "tiny.gguf"}, **settings, "paths": {"data_dir": str(home), **settings.get("paths", {})}}
    )
    return [*check_files(whole, locate(whole, {}), env or {}), *check_engine_files(whole)]


def codes(problems: list[Problem]) -> list[tuple[str, str, str]]:
    """Return (severity, code, path) of each problem."""
    return [(problem.severity, problem.code, problem.path) for problem in problems]


def test_all_in_place(home: Path) -> None:
    assert found(home, {}) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files(home: Path) -> None:
    (home / "keys.json").chmod(0)
    assert {problem.code for problem in found(home, {})} == {"keys-file-unreadable"}


def test_access_is_asked_of_the_system(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root too: a file that the system says cannot be read is told."""
    monkeypatch.setattr(os, "access", lambda *_args, **_kwargs: False)
    first = home / "first.key"
    first.write_text("")
    settings = {"auth": {"bootstrap": {"file": str(first)}}}
    assert {problem.code for problem in found(home, settings)} == {
        "file-unreadable",
        "keys-file-unreadable",
        "not-writable",
    }


def test_named_files(home: Path) -> None:
    binary = home / "llama-server"
    binary.write_text("")
    settings = {
        "auth": {"bootstrap": {"file": str(home)}},
        "engine": {"binary": str(binary)},
    }
    assert codes(found(home, settings)) == [
        ("error", "file-missing", "auth.bootstrap.file"),
        ("error", "not-executable", "engine.binary"),
    ]
    binary.chmod(0o755)
    assert found(home, {"engine": {"binary": str(binary)}}) == []


def test_directories(home: Path) -> None:
    (home / "file").write_text("")
    settings = {"paths": {"logs_dir": str(home / "file"), "run_dir": str(home / "new/run")}}
    assert codes(found(home, settings)) == [("error", "not-a-directory", "paths.logs_dir")]
    below = {"paths": {"logs_dir": str(home / "file/logs")}}
    assert codes(found(home, below)) == [("error", "not-writable", "paths.logs_dir")]


def test_keys_file(home: Path) -> None:
    keys = home / "keys.json"
    keys.chmod(0o640)
    (problem,) = found(home, {})
    assert codes([problem]) == [("warning", "keys-file-open", "auth.keys_file")]
    assert "0640" in problem.message
    assert found(home, {"auth": {"enabled": False}}) == []
    keys.unlink()
    assert codes(found(home, {})) == [("warning", "no-keys", "auth.keys_file")]
    assert found(home, {"auth": {"bootstrap": {"generate": True}}}) == []
    keys.mkdir()
    assert codes(found(home, {})) == [("error", "keys-file-unreadable", "auth.keys_file")]


def test_a_models_directory_that_is_not_there(home: Path) -> None:
    absent = {"models_dir": str(home / "none")}
    by_path = {"model": {"path": "/m.gguf"}, "paths": absent}
    assert codes(found(home, by_path)) == [("warning", "models-dir-missing", "paths.models_dir")]
    assert found(home, {"paths": absent}) == []  # told at the model that is to be in it


def test_variables_that_settings_name(home: Path) -> None:
    settings = {
        "auth": {"bootstrap": {"env": "FIRST"}},
        "limits": {"store": "redis://h", "store_password_env": "PW"},
    }
    missing = [problem.path for problem in found(home, settings)]
    assert missing == ["limits.store_password_env", "auth.bootstrap.env"]
    assert found(home, settings, {"FIRST": "b", "PW": "c"}) == []
    told = found(home, settings, {"FIRST": "b\r", "PW": " ' ' "})
    assert [(problem.code, problem.path) for problem in told] == [
        ("variable-unset", "limits.store_password_env"),
        ("quoted-variable", "auth.bootstrap.env"),
    ]


def test_a_variable_is_never_quoted() -> None:
    (unset,) = variable_problems("model.token_env", "T", {}, needed=True)
    assert (unset.severity, unset.message) == ("error", "model.token_env: the variable T is not set")
    (quoted,) = variable_problems("model.token_env", "T", {"T": '"hf_a"'})
    assert quoted.message == "model.token_env: quotes around the value of T are ignored"
    (token,) = variable_problems("model.token_env", "hf_geheim", {})
    assert "geheim" not in token.message + token.hint
    assert "if the value of model.token_env is the secret itself" in token.hint
    assert list(variable_problems("model.token_env", None, {})) == []
