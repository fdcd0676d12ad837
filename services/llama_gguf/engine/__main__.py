"""The engine program: `python -m llama_gguf.engine`, run by supervisord, becomes llama-server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llama_gguf import logs
from llama_gguf.engine import exec as engine_exec
from llama_gguf.errors import ExitCode, LlamaGgufError
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir
from llama_gguf.settings import snapshot as snapshots


def main() -> int:
    """Prepare everything and become llama-server; returns only when that fails, with the exit code."""
    root = os.environ.get(RUN_DIR_VARIABLE)
    if not root:
        sys.stderr.write(f"error: {RUN_DIR_VARIABLE} is not set\nhint: programs are started by `llama-gguf up`\n")
        return ExitCode.CONFIG
    try:
        snapshot = snapshots.read(RunDir(root=Path(root)).snapshot)
        logs.configure("engine", format=snapshot.settings.logging.format, level=snapshot.settings.logging.level)
        engine_exec.run(snapshot, os.environ)
    except LlamaGgufError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {logs.clean(error.message)}{hint}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
