from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from llama_gguf.cli.commands.diagnostics import diagnostics
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, locate, parse


def tool(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run directory as it is after a failure."""
    return failed_run(tmp_path, "m.gguf")


def failed_run(tmp_path: Path, name: str) -> RunDir:
    engine = tool(tmp_path / "llama-server", 'echo "version: 1 ($1)"')
    (tmp_path / "models").mkdir()
    (tmp_path / "models/m.gguf").write_bytes(b"GGUF" + b"\0" * 2**20)
    tree = {
        "model": {"name": name},
        "paths": {"data_dir": str(tmp_path), "run_dir": str(tmp_path / "run")},
        "engine": {"binary": str(engine)},
        "limits": {"store": "redis://u:hunter2@cache/0"},
        "health": {"host": "127.0.0.1", "port": 1},
    }
    settings = parse(tree)
    run = RunDir(root=tmp_path / "run")
    run.root.mkdir()
    snapshots.write(Snapshot(settings=settings, locations=locate(settings, {})), run.snapshot)
    run.log("engine").write_text("fine\nerror: out of memory\nkey sk-0123456789abcdef seen\n")
    run.supervisord_log.write_text("started\n")
    return run


def test_the_report(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter3")
    done = CliRunner().invoke(diagnostics, ["--run-dir", str(run.root), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report) == {
        *("system", "gpu", "disks", "engine", "model", "status"),
        *("processes", "settings", "environment", "errors", "logs"),
    }
    assert report["engine"]["version"] == ["version: 1 (--version)"]
    assert report["engine"]["devices"] == ["version: 1 (--list-devices)"]
    assert (report["model"]["is_gguf"], report["model"]["size_mib"]) == (True, 1)
    assert report["errors"] == ["engine: error: out of memory"]
    assert report["logs"]["supervisord"] == ["started"]
    assert report["environment"]["MY_SECRET_TOKEN"] == "***"
    for secret in ("hunter2", "hunter3", "sk-0123456789abcdef"):
        assert secret not in done.stdout


def test_a_model_named_without_its_suffix_is_found(tmp_path: Path) -> None:
    run = failed_run(tmp_path, "m")
    done = CliRunner().invoke(diagnostics, ["--run-dir", str(run.root), "--json"])
    found = json.loads(done.stdout)["model"]
    assert (found["file"], found["is_gguf"]) == (str(tmp_path / "models/m.gguf"), True)
    assert "reason" not in found


def test_as_text_into_a_private_file(run: RunDir, tmp_path: Path) -> None:
    target = tmp_path / "report.txt"
    target.write_text("an older report")
    target.chmod(0o644)
    done = CliRunner().invoke(diagnostics, ["--run-dir", str(run.root), "--output", str(target), "--lines", "1"])
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    text = target.read_text()
    for heading in ("== system\n", "== engine\n", "== logs\n"):
        assert heading in text
    assert "  key sk-*** seen\n" in text
    assert "error: out of memory" not in text  # one line of each log was asked for


def test_nothing_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(diagnostics, ["--run-dir", str(tmp_path / "absent")])
    assert done.exit_code == 0, done.output
    assert "reason: the settings are unknown\n" in done.stdout
