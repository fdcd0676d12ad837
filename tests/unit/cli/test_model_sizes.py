"""What the gateway is told of the models' memory, by the program itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from llama_gguf.gateway.backends.memory import read_plan
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, locate, parse
from support.tiny_model import write_tiny_model


def test_every_model_is_planned_and_what_cannot_be_says_why(tmp_path: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny.gguf")
    settings = parse(
        {
            "paths": {"data_dir": str(tmp_path), "run_dir": str(tmp_path / "run")},
            "engine": {"gpu_layers": 0, "slots": 1},
            "memory": {"host_mib": 3000},
            "models": {
                "a": {"path": str(tiny)},
                "b": {"path": str(tiny), "engine": {"slots": 4}},
                "c": {"path": str(tmp_path / "missing.gguf")},
            },
        }
    )
    snapshot = Snapshot(settings, locate(settings, {}))
    snapshot.locations.run.root.mkdir()
    snapshots.write(snapshot, snapshot.locations.run.snapshot)
    env = {**os.environ, RUN_DIR_VARIABLE: str(tmp_path / "run")}
    command = (sys.executable, "-m", "llama_gguf.cli.model_sizes")
    done = subprocess.run(command, env=env, capture_output=True, timeout=60, check=True)
    plan = read_plan(done.stdout)
    assert plan.host == 3000 << 20
    assert set(plan.models) == {"engine-a", "engine-b"}
    assert 0 < plan.models["engine-a"][1] < plan.models["engine-b"][1]
    assert set(plan.problems) == {"engine-c"}
    assert "missing.gguf" in plan.problems["engine-c"]
    assert json.loads(done.stdout)["models"]["engine-a"]["device"] == 0


def test_without_a_snapshot_it_says_so(tmp_path: Path) -> None:
    env = {**os.environ, RUN_DIR_VARIABLE: str(tmp_path)}
    command = (sys.executable, "-m", "llama_gguf.cli.model_sizes")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "no snapshot" in done.stderr
