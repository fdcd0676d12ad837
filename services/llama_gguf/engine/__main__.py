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
from llama_gguf.settings.one_model import OneModel


def main() -> int:
    """Prepare everything and become llama-server; returns only when that fails, with the exit code."""
    one: OneModel | None = None
    try:
        snapshot = read_from_environment(os.environ)
        beside = {}
        if len(sys.argv) > 1:
            one = next((model for model in snapshot.models if model.program == sys.argv[1]), None)
            others = (model for model in snapshot.models if model.program != sys.argv[1] and not model.on_demand)
            beside = {other.place: other.settings.model for other in others}
            snapshot = snapshot.of_engine(sys.argv[1])
        logs.configure(
            snapshot.locations.run.engine,
            format=snapshot.settings.logging.format,
            level=snapshot.settings.logging.level,
        )
        engine_exec.run(snapshot, os.environ, beside=beside)
    except LlamaGgufError as error:
        message = one.placed(error.message) if one else error.message
        logs.report_fatal(message, one.advice(error.hint, message) if one else error.hint)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
