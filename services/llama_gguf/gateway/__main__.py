"""`python -m llama_gguf.gateway`: the gateway as supervisord runs it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import uvloop

from llama_gguf import logs
from llama_gguf.errors import ExitCode, LlamaGgufError
from llama_gguf.settings import snapshot
from llama_gguf.settings.locations import RunDir
from llama_gguf.settings.snapshot import RUN_DIR_VARIABLE

from .server import serve
from .startup import look


def main() -> int:
    """Run the gateway; return the exit code."""
    try:
        root = os.environ.get(RUN_DIR_VARIABLE)
        if not root:
            sys.stderr.write(f"error: {RUN_DIR_VARIABLE} is not set\nhint: programs are started by `llama-gguf up`\n")
            return ExitCode.USAGE
        shot = snapshot.read(RunDir(root=Path(root)).snapshot)
        logs.configure("gateway", format=shot.settings.logging.format, level=shot.settings.logging.level)
        found = look(shot, os.environ)
        # What the start has made lives as long as the process, and requests leave few cycles behind.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(shot, found))
    except LlamaGgufError as error:
        hint = f"hint: {error.hint}\n" if error.hint else ""
        sys.stderr.write(f"error: {error.message}\n{hint}")
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
