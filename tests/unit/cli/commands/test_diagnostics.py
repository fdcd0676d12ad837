from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llama_gguf.cli import diagnostics_sections
from llama_gguf.cli.appliance import inspect
from llama_gguf.cli.commands.diagnostics import diagnostics
from llama_gguf.engine.variant_choice import HostCpu
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, locate, parse
from support.variant_engine import VariantEngine


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
    assert "reason: no settings to say which\n" in done.stdout


def shot(**sections: Any) -> Snapshot:
    settings = parse({"model": {"path": "/absent.gguf"}, **sections})
    return Snapshot(settings=settings, locations=locate(settings, {}))


def test_what_cannot_be_had_is_a_reason(tmp_path: Path) -> None:
    assert diagnostics_sections.model(shot())["reason"] == "No such file or directory"
    assert "file" not in diagnostics_sections.model(shot(model={"url": "https://example.com/m.gguf"}))
    missing = diagnostics_sections.engine(shot(engine={"binary": str(tmp_path / "no")}), {})
    assert str(tmp_path / "no") in missing["reason"]


def test_the_engine_is_asked_with_the_variant_of_its_cpu_code_that_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = HostCpu("x86_64", "model name: Old\nflags: sse4_2\n")
    monkeypatch.setattr(diagnostics_sections, "this_machine", lambda: machine)
    made = VariantEngine.make(tmp_path / "engine", ("zen4", "sse42"), crashes={"-": "SIGILL"})
    paths = {"data_dir": str(tmp_path), "run_dir": str(tmp_path)}
    found = diagnostics_sections.engine(
        shot(engine={"binary": str(made.binary)}, paths=paths), {"PATH": os.environ["PATH"]}
    )
    assert found["cpu_variant"] == {"name": "sse42", "pinned": False, "rejected": []}
    assert found["version"][0] == "version: 1 (stand-in)"
    pinned = diagnostics_sections.engine(
        shot(engine={"binary": str(made.binary), "cpu_variant": "zen4"}, paths=paths), {}
    )
    assert "this CPU lacks" in pinned["reason"]


def test_gpus(tmp_path: Path) -> None:
    assert diagnostics_sections.gpus({"PATH": str(tmp_path)})["found"] is False
    tool(tmp_path / "nvidia-smi", 'echo "NVIDIA L4, 580.1, 23034 MiB"')
    found = diagnostics_sections.gpus({"PATH": str(tmp_path)})
    assert (found["found"], found["gpus"]) == (True, ["NVIDIA L4, 580.1, 23034 MiB"])
    tool(tmp_path / "nvidia-smi", 'echo "no driver"; exit 9')
    assert diagnostics_sections.gpus({"PATH": str(tmp_path)})["reason"] == ["no driver"]


def test_a_tool_that_hangs_or_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics_sections, "_COMMAND_SECONDS", 0.1)
    tool(tmp_path / "nvidia-smi", "exec sleep 5")
    assert "timed out" in diagnostics_sections.gpus({"PATH": str(tmp_path)})["reason"][0]


def test_processes_are_those_of_supervisords_session(run: RunDir) -> None:
    assert diagnostics_sections.processes(inspect(run)) == []
    run.supervisord_pid.write_text(f"{os.getsid(0)}\n")
    found = {item["pid"]: item for item in diagnostics_sections.processes(inspect(run))}
    assert "python" in found[os.getpid()]["command"]
    assert found[os.getpid()]["rss"].endswith("kB")


def test_system_on_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert diagnostics_sections.system(tmp_path)["memory_total"] is None
