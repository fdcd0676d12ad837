"""What commands find out about an appliance: its run directory, its files, its health."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_gguf.cli.appliance import ask_health, find_run_dir, inspect, public_url
from llama_gguf.errors import ConfigError
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, locate, parse
from llama_gguf.states import Phase

SETTINGS = parse({"model": {"path": "/m"}, "health": {"host": "127.0.0.1", "port": 1}})
SNAPSHOT = Snapshot(settings=SETTINGS, locations=locate(SETTINGS, {}))


def test_find_run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_run_dir(Path("here"), None, (), {}).root == tmp_path / "here"
    assert find_run_dir(None, None, (), {"LLAMA_GGUF_RUN_DIR": "/r"}).root == Path("/r")
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"model": {"path": "/m"}, "paths": {"run_dir": "/from/config"}}))
    assert find_run_dir(None, config, (), {}).root == Path("/from/config")
    # In a shell inside a container there may be no usable file at all, but the variables are the same.
    assert find_run_dir(None, None, (), {"LLAMA_GGUF__PATHS__RUN_DIR": "/from/env"}).root == Path("/from/env")
    config.write_text("nonsense: 1")
    with pytest.raises(ConfigError):
        find_run_dir(None, config, (), {})


def test_inspecting_what_is_not_there(tmp_path: Path) -> None:
    found = inspect(RunDir(root=tmp_path))
    assert (found.snapshot, found.programs, found.health, found.failure) == (None, (), None, None)
    assert found.state == "stopped"
    (tmp_path / "engine.json").write_text("[]")
    assert inspect(RunDir(root=tmp_path)).engine is None
    (tmp_path / "engine.json").write_text('{"phase": "starting"}')
    assert inspect(RunDir(root=tmp_path)).engine == EnginePhase(Phase.STARTING)


def test_a_health_port_nobody_listens_on() -> None:
    assert ask_health(SNAPSHOT) is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://localhost:80"),
        ("::", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("h", "http://h:80"),
    ],
)
def test_public_url(host: str, url: str) -> None:
    settings = parse({"model": {"path": "/m"}, "gateway": {"host": host, "port": 80}})
    assert public_url(Snapshot(settings=settings, locations=locate(settings, {}))) == url
