"""`llama-gguf render`: options, output, messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llama_gguf.cli.__main__ import run
from llama_gguf.cli.commands.render import render
from support.rendering import ROOT

CONFIG = """model:
  hf: {repo: a/b, file: c.gguf}
auth: {bootstrap: {env: KEY}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(render, [str(argument) for argument in arguments])


def test_one_file_is_printed_as_it_is(config: Path) -> None:
    result = invoke("vast", config)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["runtype"] == "args"


def test_several_files_are_printed_with_their_names(config: Path) -> None:
    result = invoke("compose", config)
    assert result.stdout.startswith("==> compose.yaml <==\n")
    assert "\n\n==> config.yaml <==\n" in result.stdout


def test_one_of_several_can_be_picked(config: Path) -> None:
    result = invoke("runpod", config, "--print", "endpoint.json")
    assert json.loads(result.stdout)["type"] == "LOAD_BALANCER"
    wrong = invoke("runpod", config, "--print", "nothing.json")
    assert wrong.exit_code == 2
    assert "endpoint.json, hub.json" in wrong.stderr


def test_json_holds_files_and_warnings(config: Path) -> None:
    result = invoke("runpod", config, "--json")
    answer = json.loads(result.stdout)
    assert set(answer["files"]) == {"endpoint.json", "hub.json", "tests.json", "pod-template.json"}
    assert "runs-as-root" in {warning["code"] for warning in answer["warnings"]}
    assert result.stderr == ""


def test_files_are_written_and_named(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "specs"
    result = invoke("kubernetes", config, "--out", out)
    written = sorted(str(path) for path in out.rglob("*") if path.is_file())
    assert sorted(result.stdout.splitlines()) == written
    assert (out / "manifests/deployment.yaml").is_file()


def test_a_folder_that_cannot_be_written_is_a_clear_error(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifests").write_text("")
    code = run(["render", "kubernetes", str(config), "--out", str(tmp_path / "out")])
    assert code == 69
    assert "cannot be written" in capsys.readouterr().err


def test_set_name_image_and_variant_reach_the_spec(config: Path) -> None:
    result = invoke(
        "vast", config, "--set", "gateway.port=9000", "--name", "box", "--image", "a/b:1", "--variant", "cpu"
    )
    tree = json.loads(result.stdout)
    assert (tree["name"], tree["image"], tree["tag"]) == ("box", "a/b", "1")
    assert "-p 9000:9000" in tree["env"]


def test_secrets_of_this_machine_never_reach_the_spec(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "sk-very-secret-value")
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret_value")
    for platform in ("runpod", "vast", "compose", "kubernetes"):
        result = invoke(platform, config, "--secret", "HF_TOKEN", "--json")
        assert result.exit_code == 0
        assert "secret-value" not in result.output
        assert "secret_value" not in result.output
        assert "HF_TOKEN" in result.output


def test_an_error_points_into_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: {hf: {repo: a/b, file: c.gguf}}\nauth: {bootstrap: {generate: true}}\n")
    assert run(["render", "runpod", str(file)]) == 78
    message = capsys.readouterr().err
    assert f"{file}:2:30: error[key-per-worker]" in message
    assert "^^^^" in message
    assert "1 error" in message


@pytest.mark.parametrize("value", ["x", "1:y", "", "1:2:3"])
def test_replicas_are_a_number_or_a_range(config: Path, value: str) -> None:
    assert invoke("kubernetes", config, "--replicas", value).exit_code == 2


def test_a_range_of_replicas(config: Path) -> None:
    result = invoke(
        "kubernetes", config, "--replicas", "1:3", "--autoscaler", "hpa", "--print", "manifests/autoscaler.yaml"
    )
    assert "maxReplicas: 3" in result.stdout


def test_ready_made_files_are_written_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config").symlink_to(ROOT / "config")
    assert run(["render", "all", "--root", str(tmp_path), "--check"]) == 69
    assert run(["render", "all", "--root", str(tmp_path)]) == 0
    assert run(["render", "all", "--root", str(tmp_path), "--check"]) == 0
    (tmp_path / "image/compose.yaml").write_text("old")
    capsys.readouterr()
    assert run(["render", "all", "--root", str(tmp_path), "--check"]) == 69
    assert "image/compose.yaml" in capsys.readouterr().err
