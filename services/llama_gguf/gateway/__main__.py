"""`python -m llama_gguf.gateway`: the entry point of the gateway, run by supervisord."""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import uvloop

from llama_gguf import logs
from llama_gguf.errors import ExitCode, LlamaGgufError
from llama_gguf.gateway.allocator import return_freed_memory
from llama_gguf.gateway.inputs import read_runtime_inputs
from llama_gguf.rundir.snapshot import read_from_environment

from .server import serve


def main() -> int:
    """Run the gateway; return the exit code."""
    try:
        snapshot = read_from_environment(os.environ)
        logs.configure("gateway", format=snapshot.settings.logging.format, level=snapshot.settings.logging.level)
        inputs = read_runtime_inputs(snapshot, os.environ)
        # Objects created at the start live as long as the process, and requests create few reference cycles.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        return_freed_memory()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(snapshot, inputs))
    except LlamaGgufError as error:
        logs.report_fatal(error.message, error.hint)
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
