from __future__ import annotations

import json
import logging
import shlex
import socket
from pathlib import Path

import pytest

from llama_gguf.cli.commands import up as up_module
from llama_gguf.cli.commands.up import (
    describe_device,
    first_key,
    greet,
    log_boot,
    programs_environment,
    sample_call,
    up,
    warn_of_on_demand,
    with_platform,
)
from llama_gguf.keys.bootstrap import BootstrapResult
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.runtime.launch import LaunchInputs
from llama_gguf.settings import locate, parse


def snapshot(tmp_path: Path, **sections: object) -> Snapshot:
    paths = {"data_dir": str(tmp_path), "run_dir": str(tmp_path / "run")}
    settings = parse({"model": {"path": "/m.gguf"}, "paths": paths, **sections})
    return Snapshot(settings=settings, locations=locate(settings, {}))


def test_the_platform_is_made_concrete() -> None:
    settings = parse({"model": {"path": "/m"}})
    assert with_platform(settings, {"RUNPOD_POD_ID": "x"}).health.platform == "runpod"
    assert with_platform(settings, {}).health.platform == "plain"
    assert settings.health.platform == "auto"


def test_the_instance_is_named_by_the_operator_the_platform_or_the_host() -> None:
    def named(env: dict[str, str], **logging: str) -> str | None:
        return with_platform(parse({"model": {"path": "/m"}, "logging": logging}), env).logging.instance_id

    vast = {"CONTAINER_ID": "C.7", "CONTAINER_API_KEY": "k"}
    assert named({"RUNPOD_POD_ID": "pod-1"}) == "pod-1"
    assert named({"RUNPOD_ENDPOINT_ID": "e", "RUNPOD_POD_ID": " "}) == socket.gethostname()
    assert named(vast) == "C.7"
    assert named(vast, instance_id="mine") == "mine"
    assert named({"CONTAINER_ID": "not of Vast"}) == socket.gethostname()


def test_programs_do_not_get_the_first_key() -> None:
    settings = parse({"model": {"path": "/m"}, "auth": {"bootstrap": {"env": "FIRST"}}})
    assert programs_environment({"FIRST": "sk-x", "HF_TOKEN": "t"}, settings) == {"HF_TOKEN": "t"}
    assert programs_environment({"FIRST": "x"}, parse({"model": {"path": "/m"}})) == {"FIRST": "x"}


@pytest.mark.parametrize(
    "auth", [{}, {"enabled": False, "bootstrap": {"generate": True}}, {"bootstrap": {"generate": False}}]
)
def test_no_key_where_none_is_asked_for(tmp_path: Path, auth: dict[str, object]) -> None:
    assert first_key(snapshot(tmp_path, auth=auth), {}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_first_key_from_the_environment(tmp_path: Path) -> None:
    made = first_key(snapshot(tmp_path, auth={"bootstrap": {"env": "FIRST"}}), {"FIRST": "sk-" + "a" * 43})
    assert made is not None
    assert (made.outcome, made.secret) == ("added", "")


def test_device(tmp_path: Path) -> None:
    assert describe_device(tmp_path).startswith("cpu (")
    for name, text in (("a", "Model: \t NVIDIA A10\nIRQ: 3\n"), ("b", "Model: NVIDIA L4\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "information").write_text(text)
    assert describe_device(tmp_path) == "NVIDIA A10, NVIDIA L4"


def test_the_boot_log_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shot = snapshot(tmp_path, limits={"store": "redis://user:hunter2@cache:6379/0"})
    with caplog.at_level(logging.INFO):
        log_boot(shot, None)
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert fields[0]["config"] == "none: variables only"
    assert json.loads(fields[1]["settings"])["gateway"]["port"] == 8000
    assert "hunter2" not in str(fields)


def test_a_model_that_no_request_could_load_is_told_at_the_start(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(tiny_model.read_bytes()[:-1000])
    models = {
        "chat": {"path": str(tiny_model), "engine": {"context_per_slot": 512}, "load": "on_demand"},
        "broken": {"path": str(half), "load": "on_demand"},
        "at-once": {"path": str(half)},  # its own engine says so
    }
    warn_of_on_demand(snapshot(tmp_path, model={}, models=models), {})
    (record,) = caplog.records
    assert record.getMessage().startswith(f"models.broken: {half} is incomplete: ")
    assert record.__dict__["fields"] == {
        "model": "broken",
        "code": "model-incomplete",
        "hint": "its download or copy was not finished; download it again",
    }
    warn_of_on_demand(snapshot(tmp_path), {})
    assert len(caplog.records) == 1


def test_a_new_key_is_shown_once_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greet(snapshot(tmp_path), BootstrapResult("generated", "bootstrap", "", "sk-new"))
    out = capsys.readouterr()
    assert out.out == ""
    assert "API: http://localhost:8000\n" in out.err
    assert "API key, shown only once: sk-new\n" in out.err
    assert "Authorization: Bearer sk-new" in out.err


def test_no_key_at_all_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greet(snapshot(tmp_path), None)
    assert "llama-gguf keys generate" in capsys.readouterr().err
    (tmp_path / "keys.json").touch()
    greet(snapshot(tmp_path), BootstrapResult("present"))
    assert "keys generate" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "path"), [("generate", "/v1/chat/completions"), ("embed", "/v1/embeddings"), ("rerank", "/v1/rerank")]
)
def test_the_sample_call(tmp_path: Path, task: str, path: str) -> None:
    shot = snapshot(tmp_path, engine={"task": task}, gateway={"host": "::1", "port": 81})
    words = shlex.split(sample_call(shot, ""))
    assert words[:3] == ["curl", "-sS", f"http://[::1]:81{path}"]
    assert "Authorization: Bearer YOUR_KEY" in words
    json.loads(words[-1])
    open_shot = snapshot(tmp_path, auth={"enabled": False})
    assert "Authorization" not in sample_call(open_shot, "")


def test_up_hands_everything_to_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[LaunchInputs] = []

    def launched(what: LaunchInputs) -> int:
        got.append(what)
        return 69

    monkeypatch.setattr(up_module, "launch", launched)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"model": {"path": "/m.gguf"}, "paths": {"data_dir": str(tmp_path)}}))
    with pytest.raises(SystemExit) as ended:
        up(["--config", str(config), "--set", "gateway.port=9009"])
    assert ended.value.code == 69
    (what,) = got
    assert what.snapshot.settings.gateway.port == 9009
    assert what.snapshot.settings.health.platform != "auto"
    assert [program.name for program in what.programs] == ["listener", "health", "gateway", "engine"]
