"""The engine program: `python -m llama_gguf.engine [PROGRAM]`, run by supervisord, becomes llama-server.

PROGRAM is the name of its program where there are several models.
"""

from __future__ import annotations

import os
import sys

from llama_gguf import logs
from llama_gguf.engine import exec as engine_exec
from llama_gguf.errors import LlamaGgufError
from llama_gguf.rundir.snapshot import read_from_environment


def main() -> int:
    """Prepare everything and become llama-server; returns only when that fails, with the exit code."""
    try:
        snapshot = read_from_environment(os.environ)
        beside = {}
        if len(sys.argv) > 1:
            others = (one for one in snapshot.models if one.program != sys.argv[1] and not one.on_demand)
            beside = {one.place: one.settings.model for one in others}
            snapshot = snapshot.of_engine(sys.argv[1])
        logs.configure(
            snapshot.locations.run.engine,
            format=snapshot.settings.logging.format,
            level=snapshot.settings.logging.level,
        )
        engine_exec.run(snapshot, os.environ, beside=beside)
    except LlamaGgufError as error:
        logs.report_fatal(error.message, error.hint)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
