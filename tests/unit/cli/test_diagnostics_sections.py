"""The sections of the diagnostics, each on a machine that lacks something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.cli import diagnostics_sections
from llama_gguf.cli.appliance import inspect
from llama_gguf.engine.variant_choice import HostCpu
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, locate, parse
from support.variant_engine import VariantEngine


def tool(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def shot(**sections: Any) -> Snapshot:
    settings = parse({"model": {"path": "/absent.gguf"}, **sections})
    return Snapshot(settings=settings, locations=locate(settings, {}))


def test_what_cannot_be_had_is_a_reason(tmp_path: Path) -> None:
    assert diagnostics_sections.model(shot(), {})["reason"] == "No such file or directory"
    absent = diagnostics_sections.model(shot(model={"url": "https://example.com/m.gguf"}), {})
    assert (absent["downloaded"], "file" in absent) == (False, False)
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


def test_each_of_several_models_is_told_of(tmp_path: Path) -> None:
    server = tool(tmp_path / "server", 'echo "$1"')
    other = tool(tmp_path / "other", 'echo "other $1"')
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(2**20))
    (tmp_path / "b.gguf").write_text("<html>")
    models: dict[str, dict[str, Any]] = {
        "a": {"path": str(tmp_path / "a.gguf"), "token_env": "TOKEN"},
        "b": {"path": str(tmp_path / "b.gguf"), "engine": {"slots": 1}, "load": "on_demand"},
        "c": {"hf": {"repo": "o/n", "file": "c.gguf"}, "engine": {"binary": str(other)}},
    }
    both = shot(model={}, models=models, engine={"binary": str(server)}, paths={"data_dir": str(tmp_path)})
    found = diagnostics_sections.model(both, {})
    assert list(found) == ["a", "b", "c"]
    assert (found["a"]["file"], found["a"]["is_gguf"], found["a"]["size_mib"]) == (models["a"]["path"], True, 1)
    assert (found["b"]["is_gguf"], found["b"]["source"]["load"]) == (False, "on_demand")
    assert (found["c"]["downloaded"], found["c"]["source"]["hf"]["repo"]) == (False, "o/n")
    engines = diagnostics_sections.engine(both, {"PATH": os.environ["PATH"]})
    assert engines["a"]["version"] == ["--version"]
    assert engines["b"] == {"same_as": "a"}
    assert engines["c"]["version"] == ["other --version"]


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


def test_processes_are_those_of_supervisords_session(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    assert diagnostics_sections.processes(inspect(run)) == []
    run.supervisord_pid.write_text(f"{os.getsid(0)}\n")
    found = {item["pid"]: item for item in diagnostics_sections.processes(inspect(run))}
    assert "python" in found[os.getpid()]["command"]
    assert found[os.getpid()]["rss"].endswith("kB")


def test_system_on_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert diagnostics_sections.system(tmp_path)["memory_total"] is None
