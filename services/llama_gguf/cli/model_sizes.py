"""What each model of the running appliance needs, for the gateway: `python -m llama_gguf.cli.model_sizes`, as JSON.

A program of its own, because it reads the headers of all models and asks llama-server for its devices.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from llama_gguf.cli.plan_facts import estimate, inspect_engine, machine
from llama_gguf.errors import LlamaGgufError
from llama_gguf.models.source import plan_sources
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir

_MIB = 1 << 20


def model_sizes(snapshot: Snapshot) -> dict[str, Any]:
    """Return the bytes that all models together may use, those of each by its program, and why some are not known."""
    settings, locations = snapshot.settings, snapshot.locations
    models: dict[str, dict[str, int]] = {}
    problems: dict[str, str] = {}
    device: int | None = None
    host: int | None = None
    for one in snapshot.models:
        engine = inspect_engine(one.settings, os.environ, locations)
        box = machine(engine, None, None)
        device, host = box.device_bytes, box.host_bytes
        try:
            plan = estimate(one.settings, plan_sources(one.settings.model, locations, os.environ), box)
        except LlamaGgufError as error:
            problems[one.program] = error.message
        else:
            models[one.program] = {"device": plan.device, "host": plan.host}
    return {
        "device_bytes": _bound(settings.memory.device_mib, device),
        "host_bytes": _bound(settings.memory.host_mib, host),
        "models": models,
        "problems": problems,
    }


def _bound(setting: object, found: int | None) -> int | None:
    return found if not isinstance(setting, int) else setting * _MIB


def main() -> int:
    """Print the sizes; return the exit code."""
    try:
        snapshot = snapshots.read_validated(RunDir(root=Path(os.environ[RUN_DIR_VARIABLE])).snapshot)
        sys.stdout.write(json.dumps(model_sizes(snapshot)))
    except LlamaGgufError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
