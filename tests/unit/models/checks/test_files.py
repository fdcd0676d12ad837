"""What `check` says of files on disk is what a start would end with, word for word."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.errors import ModelError, Problem
from llama_gguf.models.checks.files import file_problems, token_problems
from llama_gguf.models.inventory import file_status
from llama_gguf.models.resolve import resolve
from llama_gguf.models.source import plan_sources
from support.companion_files import write_adapter, write_part, write_projector
from support.model_box import locations_for, settings_for
from support.silent import Silent
from support.tiny_encoder import write_tiny_encoder
from support.tiny_model import write_tiny_model

SMALL = {"context_per_slot": 512}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a models directory with one of each kind."""
    folder = locations_for(tmp_path).models_dir
    whole = write_tiny_model(folder / "tiny.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[:-1000])
    (folder / "head.gguf").write_bytes(whole[:200])
    (folder / "lfs.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "dir.gguf").mkdir()
    (folder / "whole.jinja").write_text("{{ messages }}")
    (folder / "broken.jinja").write_text("{{ messages")
    write_tiny_encoder(folder / "bert.gguf")
    write_adapter(folder / "lora.gguf", "llama")
    write_adapter(folder / "lora-of-another.gguf", "qwen3")
    write_projector(folder / "mmproj.gguf")
    write_part(folder / "s-00001-of-00003.gguf", 0, 3)
    write_part(folder / "s-00002-of-00003.gguf", 1, 3)
    write_part(folder / "renamed.gguf", 0, 3)
    return folder


def found(root: Path, model: dict[str, Any], engine: dict[str, Any] | None = None) -> list[Problem]:
    return file_problems(settings_for(root, model, engine=SMALL if engine is None else engine), locations_for(root), {})


@pytest.mark.parametrize(
    ("model", "code", "path"),
    [
        ({"name": "none"}, "model-missing", "model.name"),
        ({"path": "/nowhere/x.gguf"}, "model-missing", "model.path"),
        ({"name": "dir"}, "model-missing", "model.name"),
        ({"path": "/"}, "model-unreadable", "model.path"),
        ({"name": "cut"}, "model-incomplete", "model.name"),
        ({"name": "head"}, "model-incomplete", "model.name"),
        ({"name": "lfs"}, "model-not-gguf", "model.name"),
        ({"name": "whole.jinja"}, "model-not-gguf", "model.name"),
        ({"name": "s-00002-of-00003"}, "model-split", "model.name"),
        ({"name": "renamed"}, "model-split", "model.name"),
        ({"name": "s-00001-of-00003"}, "model-missing", "model.name"),
        ({"name": "mmproj"}, "model-wrong-kind", "model.name"),
        ({"name": "lora"}, "model-wrong-kind", "model.name"),
        ({"name": "tiny", "mmproj": {"name": "tiny"}}, "model-wrong-kind", "model.mmproj.name"),
        ({"name": "tiny", "lora": [{"name": "lora"}, {"name": "tiny"}]}, "model-wrong-kind", "model.lora[1].name"),
        ({"name": "tiny", "lora": [{"name": "lora-of-another"}]}, "model-unrelated", "model.lora[0]"),
        ({"name": "tiny", "draft": {"name": "mmproj"}}, "model-wrong-kind", "model.draft.name"),
        ({"name": "tiny", "draft": {"name": "bert"}}, "model-unrelated", "model.draft"),
        ({"name": "tiny", "draft": {"name": "none"}}, "model-missing", "model.draft.name"),
        ({"name": "tiny", "chat_template": "tiny.gguf"}, "template-unusable", "model.chat_template"),
        ({"name": "tiny", "chat_template": "broken.jinja"}, "template-unusable", "model.chat_template"),
        ({"name": "tiny", "chat_template": "none.jinja"}, "model-missing", "model.chat_template"),
    ],
    ids=str,
)
def test_each_mistake_is_told_as_a_start_tells_it(
    models: Path, monkeypatch: pytest.MonkeyPatch, *, model: dict[str, Any], code: str, path: str
) -> None:
    monkeypatch.chdir(models)
    tmp_path = models.parent
    (problem,) = found(tmp_path, model)
    assert (problem.code, problem.path, problem.severity) == (code, path, "error")
    with pytest.raises(ModelError) as caught:
        resolve(settings_for(tmp_path, model).model, locations_for(tmp_path), {}, Silent())
    assert (caught.value.message, caught.value.hint) == (problem.message, problem.hint)
    assert problem.message.startswith("model")


def test_what_is_right(models: Path, tmp_path: Path) -> None:
    template = str(models / "whole.jinja")
    model = {"name": "tiny", "lora": [{"name": "lora"}], "draft": {"name": "tiny"}, "chat_template": template}
    assert found(tmp_path, model) == []
    assert found(tmp_path, {"name": "tiny", "mmproj": {"name": "mmproj"}}) == []


def test_all_that_is_wrong_is_told_at_once(models: Path, tmp_path: Path) -> None:
    model = {"name": "cut", "draft": {"name": "none"}, "chat_template": str(models / "broken.jinja")}
    codes = [problem.code for problem in found(tmp_path, model)]
    assert codes == ["model-incomplete", "model-missing", "template-unusable"]


def test_the_model_is_read_for_its_task(models: Path, tmp_path: Path) -> None:
    assert models.is_dir()
    (problem,) = found(tmp_path, {"name": "bert"}, {"context_per_slot": 128})
    assert (problem.code, problem.path) == ("model-task", "model")
    assert found(tmp_path, {"name": "bert"}, {"context_per_slot": 128, "task": "embed"}) == []
    (warning,) = found(tmp_path, {"name": "tiny"}, {})
    assert (warning.code, "(the default)" in warning.message) == ("context-over-training", True)


def test_of_what_is_to_be_downloaded_nothing_is_said(tmp_path: Path) -> None:
    assert found(tmp_path, {"url": "https://models.test/m.gguf", "mmproj": {"hf": {"repo": "a/b", "file": "p"}}}) == []


def test_what_was_downloaded_is_read(models: Path, tmp_path: Path) -> None:
    url: dict[str, Any] = {"url": "https://models.test/m.gguf"}
    model = settings_for(tmp_path, url).model
    there = file_status(plan_sources(model, locations_for(tmp_path), {}).model).path
    there.parent.mkdir(parents=True)
    there.write_bytes((models / "cut.gguf").read_bytes())
    (problem,) = found(tmp_path, url)
    assert (problem.code, problem.path) == ("model-incomplete", "model.url")


def test_a_models_directory_that_is_not_there(tmp_path: Path) -> None:
    locations = locations_for(tmp_path)
    locations.models_dir.rmdir()
    (problem,) = file_problems(settings_for(tmp_path, {"name": "m"}), locations, {})
    assert (problem.code, problem.path) == ("models-dir-missing", "model.name")
    assert "set paths.models_dir" in problem.hint


def test_a_name_that_leads_outside(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, {"hf": {"repo": "a/b", "file": "../m.gguf"}})
    assert (problem.code, problem.path) == ("bad-name", "model.hf.file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read(models: Path, tmp_path: Path) -> None:
    (models / "tiny.gguf").chmod(0)
    assert found(tmp_path, {"name": "tiny"})[0].code == "model-unreadable"


def test_the_tokens_of_downloads(models: Path, tmp_path: Path) -> None:
    assert models.is_dir()

    def told(model: dict[str, Any], env: Mapping[str, str]) -> list[tuple[str, str, str]]:
        problems = token_problems(settings_for(tmp_path, model), locations_for(tmp_path), env)
        return [(problem.severity, problem.code, problem.path) for problem in problems]

    remote = {"url": "https://models.test/m.gguf", "token_env": "TOKEN"}
    assert told(remote, {}) == [("error", "variable-unset", "model.token_env")]
    assert told(remote, {"TOKEN": "x"}) == []
    assert told(remote, {"TOKEN": '"x"'}) == [("warning", "quoted-variable", "model.token_env")]
    assert told({"name": "tiny", "token_env": "TOKEN"}, {}) == [("warning", "variable-unset", "model.token_env")]
    lora = {"name": "tiny", "lora": [{"hf": {"repo": "a/b", "file": "l.gguf"}, "token_env": "TOKEN"}]}
    assert told(lora, {}) == [("error", "variable-unset", "model.lora[0].token_env")]
    assert told({"hf": {"repo": "a/b", "file": "../m.gguf"}, "token_env": "TOKEN"}, {}) == []
