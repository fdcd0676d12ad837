"""file_checks: what the settings name on this machine, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.errors import ModelError, Problem
from llama_gguf.settings import Locations, Settings, locate, parse
from llama_gguf.settings.checks.machine import check_files
from llama_gguf.settings.checks.model_facts import ModelFacts


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a data directory with a model and a private keys file."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny.gguf").write_bytes(b"GGUF....")
    keys = tmp_path / "keys.json"
    keys.write_text("{}")
    keys.chmod(0o600)
    return tmp_path


def found(home: Path, settings: dict[str, Any], env: Mapping[str, str] | None = None, **more: Any) -> list[Problem]:
    """Return the problems of `settings` in the data directory `home`."""
    whole = parse(
        {"model": {"name": "tiny.gguf"}, **settings, "paths": {"data_dir": str(home), **settings.get("paths", {})}}
    )
    return check_files(whole, locate(whole, {}), env or {}, **more)


def codes(problems: list[Problem]) -> list[tuple[str, str, str]]:
    """Return (severity, code, path) of each problem."""
    return [(problem.severity, problem.code, problem.path) for problem in problems]


def test_all_in_place(home: Path) -> None:
    assert found(home, {}) == []
    assert found(home, {"model": {"name": "tiny"}}) == [], "the suffix may be left out"


def test_missing_model_names_the_nearest(home: Path) -> None:
    (problem,) = found(home, {"model": {"name": "tinny.gguf"}})
    assert codes([problem]) == [("error", "model-missing", "model.name")]
    assert problem.hint == 'did you mean "tiny.gguf"?'
    (problem,) = found(home, {"model": {"path": str(home / "models/xyz.gguf")}})
    assert problem.hint == "it contains tiny.gguf"
    (problem,) = found(home, {"model": {"path": str(home / "nowhere/xyz.gguf")}})
    assert "does not exist either" in problem.hint


def test_empty_and_missing_models_directories(home: Path) -> None:
    (home / "empty").mkdir()
    (problem,) = found(home, {"paths": {"models_dir": str(home / "empty")}})
    assert "contains no GGUF file" in problem.hint
    (problem,) = found(home, {"paths": {"models_dir": str(home / "none")}})
    assert (problem.code, problem.hint) == ("models-dir-missing", "see paths.models_dir")
    (problem,) = found(home / "bare", {"auth": {"enabled": False}})
    assert (problem.code, "model.path" in problem.hint) == ("models-dir-missing", True)
    path = {"model": {"path": str(home / "models/tiny.gguf")}, "paths": {"models_dir": str(home / "none")}}
    assert codes(found(home, path)) == [("warning", "models-dir-missing", "paths.models_dir")]


def test_files_that_are_no_models(home: Path) -> None:
    (home / "models/text.gguf").write_text("hello")
    (home / "models/lfs.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    (home / "models/dir.gguf").mkdir()
    assert found(home, {"model": {"name": "text"}})[0].code == "model-not-gguf"
    assert "git lfs pull" in found(home, {"model": {"name": "lfs"}})[0].hint
    assert found(home, {"model": {"name": "dir"}})[0].code == "model-unreadable"


def test_companions_are_looked_at_too(home: Path) -> None:
    model = {
        "name": "tiny.gguf",
        "draft": {"path": str(home / "d.gguf")},
        "lora": [{"name": "style"}],
        "mmproj": {"url": "https://example.com/p.gguf"},
    }
    assert codes(found(home, {"model": model})) == [
        ("error", "model-missing", "model.draft.path"),
        ("error", "model-missing", "model.lora[0].name"),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files(home: Path) -> None:
    (home / "models/tiny.gguf").chmod(0)
    (home / "keys.json").chmod(0)
    assert {problem.code for problem in found(home, {})} == {"model-unreadable", "keys-file-unreadable"}


def test_access_is_asked_of_the_system(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root too: a file that the system says cannot be read is told."""
    monkeypatch.setattr(os, "access", lambda *_args, **_kwargs: False)
    template = home / "t.jinja"
    template.write_text("")
    settings = {"model": {"name": "tiny.gguf", "chat_template": str(template)}}
    assert {problem.code for problem in found(home, settings)} == {
        "model-unreadable",
        "file-unreadable",
        "keys-file-unreadable",
        "not-writable",
    }


def test_named_files(home: Path) -> None:
    binary = home / "llama-server"
    binary.write_text("")
    settings = {
        "model": {"name": "tiny.gguf", "chat_template": str(home / "none.jinja")},
        "auth": {"bootstrap": {"file": str(home)}},
        "engine": {"binary": str(binary)},
    }
    assert codes(found(home, settings)) == [
        ("error", "file-missing", "model.chat_template"),
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


def test_variables_that_settings_name(home: Path) -> None:
    settings = {
        "model": {"hf": {"repo": "a/b", "file": "c.gguf"}, "token_env": "TOKEN"},
        "auth": {"bootstrap": {"env": "FIRST"}},
        "limits": {"store": "redis://h", "store_password_env": "PW"},
    }
    missing = [problem.path for problem in found(home, settings)]
    assert missing == ["limits.store_password_env", "auth.bootstrap.env", "model.token_env"]
    assert found(home, settings, {"TOKEN": "a", "FIRST": "b", "PW": "c"}) == []
    told = found(home, settings, {"TOKEN": '"hf_a"', "FIRST": "b\r", "PW": " ' ' "})
    assert [(problem.code, problem.path) for problem in told] == [
        ("variable-unset", "limits.store_password_env"),
        ("quoted-variable", "auth.bootstrap.env"),
        ("quoted-variable", "model.token_env"),
    ]
    assert told[2].message == "model.token_env: quotes around the value of TOKEN are ignored"
    assert not any("hf_a" in f"{problem.message} {problem.hint}" for problem in told)


@pytest.mark.parametrize(
    ("trained", "context", "told"), [(2048, 4096, True), (4096, 4096, False), (0, 4096, False), (2048, 0, False)]
)
def test_context_beyond_training(home: Path, trained: int, context: int, told: bool) -> None:
    settings = {"engine": {"context_per_slot": context, "slots": 2}}
    problems = found(home, settings, read_model=lambda *_: ModelFacts(trained, pools=False, reranks=False, chats=True))
    assert [problem.code for problem in problems] == (["context-over-training"] if told else [])
    if told:
        assert "8192 tokens of memory" in problems[0].message


@pytest.mark.parametrize(
    ("engine", "pools", "reranks", "told"),
    [
        ({"task": "embed"}, False, False, ["no-pooling"]),
        ({"task": "embed"}, True, False, []),
        ({"task": "embed", "pooling": "none"}, False, False, []),
        ({"task": "embed", "pooling": "mean"}, False, False, []),
        ({"task": "rerank"}, True, False, ["no-reranker"]),
        ({"task": "rerank"}, True, True, []),
        ({}, False, False, []),
    ],
)
def test_a_model_that_does_not_suit_its_task(
    home: Path, engine: dict[str, Any], pools: bool, reranks: bool, told: list[str]
) -> None:
    problems = found(home, {"engine": engine}, read_model=lambda *_: ModelFacts(0, pools, reranks, chats=True))
    assert [problem.code for problem in problems] == told
    assert all(problem.severity == "warning" and problem.hint for problem in problems)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, True),
        ({"gateway": {"routes": ["messages", "completions"]}}, True),
        ({"gateway": {"routes": ["responses"]}}, True),
        ({"gateway": {"routes": ["completions", "infill", "tokenize", "models"]}}, False),  # nothing writes a chat
        ({"engine": {"task": "embed", "pooling": "mean"}}, False),
        ({"engine": {"task": "rerank"}}, False),
    ],
)
def test_a_model_without_a_chat_template(home: Path, settings: dict[str, Any], *, told: bool) -> None:
    problems = found(home, settings, read_model=lambda *_: ModelFacts(0, pools=True, reranks=True, chats=False))
    assert [problem.code for problem in problems] == (["no-chat-template"] if told else [])
    if told:
        assert "the model has no chat template: chat responses will be poor" in problems[0].message
        assert "set model.chat_template" in problems[0].hint
        assert (problems[0].path, problems[0].severity) == ("model.chat_template", "warning")


def test_a_chat_template_of_ones_own_will_do(home: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    settings = {"model": {"name": "tiny.gguf", "chat_template": str(template)}}
    assert found(home, settings, read_model=lambda *_: ModelFacts(0, pools=True, reranks=True, chats=False)) == []


def test_nothing_is_said_of_a_model_that_is_not_here_yet(home: Path) -> None:
    assert found(home, {"engine": {"task": "embed"}}, read_model=lambda *_: None) == []


def test_broken_header_is_told_and_a_missing_file_is_not_read(home: Path) -> None:
    asked = []

    def read_model(settings: Settings, _locations: Locations) -> ModelFacts | None:
        asked.append(settings.model.name)
        raise ModelError("the header is broken", code="model_not_gguf", hint="download it again")

    (problem,) = found(home, {}, read_model=read_model)
    assert (problem.code, problem.hint) == ("model-unusable", "download it again")
    found(home, {"model": {"name": "none"}}, read_model=read_model)
    assert asked == ["tiny.gguf"]


def test_directory_that_cannot_be_listed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    (problem,) = found(home, {"model": {"name": "none"}})
    assert problem.hint == ""
