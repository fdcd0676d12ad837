"""The health program: `python -m llama_gguf.health`, run by supervisord."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from llama_gguf import logs
from llama_gguf.errors import ExitCode, LlamaGgufError
from llama_gguf.health.responses import Response, respond
from llama_gguf.rundir.snapshot import Snapshot, read_from_environment
from llama_gguf.settings.platform import resolve_platform

from .monitor import Monitor
from .server import HealthServer

log = logging.getLogger("llama_gguf.health")


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    try:
        snapshot = read_from_environment(os.environ)
        logs.configure("health", format=snapshot.settings.logging.format, level=snapshot.settings.logging.level)
        asyncio.run(serve(snapshot))
    except LlamaGgufError as error:
        logs.report_fatal(error.message, error.hint)
        return error.exit_code
    return ExitCode.OK


async def serve(snapshot: Snapshot) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = snapshot.settings
    health = settings.health
    platform = resolve_platform(health.platform, os.environ)
    monitor = Monitor(snapshot, print_line=_print_line)

    def respond_to(path: str) -> Response:
        return respond(path, health.path, platform, monitor.current())

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if snapshot.locations.run.ready.exists():
        await monitor.check()  # restarted beside a ready appliance: the first response must not be a wrong "unready"
    async with HealthServer(respond_to).listening(health.host, health.port):
        log.info("health server listening", extra=logs.fields(host=health.host, port=health.port, platform=platform))
        checking = asyncio.create_task(monitor.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({checking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if checking.done():
            checking.result()  # a defect: exit with its traceback; supervisord restarts us
        checking.cancel()


def _print_line(line: str) -> None:
    sys.stdout.write(logs.clean(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
