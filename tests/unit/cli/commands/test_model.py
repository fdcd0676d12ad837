"""`llama-gguf model info` and `download`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llama_gguf.cli.commands.model import model
from llama_gguf.errors import ModelError
from support.file_server import Remote, file_server


@pytest.fixture(autouse=True)
def _nowhere_special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(model, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_info(tiny_model: Path) -> None:
    facts = json.loads(run("info", tiny_model, "--json").stdout)
    assert facts == {
        "path": str(tiny_model),
        "bytes": tiny_model.stat().st_size,
        "complete": True,
        "name": "tiny-random-llama",
        "architecture": "llama",
        "parameters": facts["parameters"],
        "types": {"f32": facts["parameters"]},
        "trained_context": 2048,
        "layers": 2,
        "windowed_layers": 0,
        "vocabulary": 264,
        "chat_template": True,
        "license": "",
        "parts": 1,
    }
    text = run("info", tiny_model).stdout
    assert "trained context  2,048\n" in text
    assert "types            f32 100%\n" in text
    assert "chat template    yes\n" in text


def test_info_of_the_configured_model(tiny_model: Path, tmp_path: Path) -> None:
    there = run("info", "--json", "--set", f"model.path={tiny_model}")
    assert json.loads(there.stdout)["layers"] == 2
    with pytest.raises(ModelError, match="not on disk yet") as caught:
        run("info", "--set", f"paths.data_dir={tmp_path}", "--set", "model.url=https://example.org/x.gguf")
    assert "models pull" in caught.value.hint
    with pytest.raises(ModelError, match="does not exist"):
        run("info", tmp_path / "none.gguf")


def test_download(tiny_model: Path, tmp_path: Path) -> None:
    with file_server() as site:
        site.files["/tiny.gguf"] = Remote(tiny_model.read_bytes())
        options = ("--set", f"model.url={site.url('/tiny.gguf')}", "--set", f"paths.data_dir={tmp_path}")
        result = run("download", *options)
        path = Path(result.stdout.removeprefix("model: ").strip())
        assert path.read_bytes() == tiny_model.read_bytes()
        assert f"downloading: {site.url('/tiny.gguf')}" in result.stderr
        found = json.loads(run("download", "--json", *options).stdout)
        assert found == {"model": str(path)}
        assert len(site.requests) == 1


def test_every_file_is_told(tiny_model: Path, tiny_rerank_model: Path, tmp_path: Path) -> None:
    draft = str(tiny_rerank_model)
    files = ("--set", f"model.path={tiny_model}", "--set", f"model.draft.path={draft}")
    result = run("download", "--json", *files, "--set", f"paths.data_dir={tmp_path}")
    assert json.loads(result.stdout) == {"model": str(tiny_model), "draft": draft}
