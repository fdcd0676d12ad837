"""What each model of the running appliance needs, for the gateway: `python -m llama_gguf.cli.model_sizes`, as JSON.

A program of its own, because it reads the headers of all models and asks llama-server for its devices. The numbers are
those of `plan`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from llama_gguf.cli.plan.facts import gather
from llama_gguf.errors import LlamaGgufError
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir
from llama_gguf.settings.loading.load import Loaded


def model_sizes(snapshot: Snapshot) -> dict[str, Any]:
    """Return the bytes that all models together may use, those of each by its program, and why some are not known."""
    facts = gather(Loaded(snapshot.settings, {}), os.environ, growth=False)
    machine = facts.together.machine if facts.together else None
    return {
        "device_bytes": machine.device_bytes if machine else None,
        "host_bytes": machine.host_bytes if machine else None,
        "models": {
            model.one.program: {"device": model.memory.device, "host": model.memory.host}
            for model in facts.models
            if model.memory
        },
        "problems": {model.one.program: model.memory_problem.message for model in facts.models if model.memory_problem},
    }


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
