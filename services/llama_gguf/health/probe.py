"""The probes: the engine's /health over its socket, the gateway's TCP port, and the files of the run directory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from llama_gguf.health.engines import EngineSeen
from llama_gguf.rundir import engine_phase, engine_variant, failure
from llama_gguf.settings import RunDir
from llama_gguf.settings.hosts import from_here
from llama_gguf.settings.one_model import OneModel
from llama_gguf.states import Phase

_REQUEST = b"GET /health HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"


async def probe_engine(socket: Path, timeout_seconds: float) -> Phase | None:
    """Return the phase of llama-server by its /health, None where nothing listens on the socket; never raises."""
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(_REQUEST)
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return Phase.SILENT
    except (OSError, ValueError):  # ValueError: a line longer than the buffer
        return None
    return _engine_phase(line)


def _engine_phase(status_line: bytes) -> Phase:
    parts = status_line.split()
    code = parts[1] if len(parts) > 1 and parts[0].startswith(b"HTTP/") else b""
    if code == b"200":
        return Phase.SERVING
    return Phase.LOADING if code == b"503" else Phase.BROKEN


async def accepts_connections(host: str, port: int, timeout_seconds: float) -> bool:
    """Return whether a TCP connection is accepted there; sends nothing."""
    try:
        async with asyncio.timeout(timeout_seconds):
            _reader, writer = await asyncio.open_connection(from_here(host), port)
    except (TimeoutError, OSError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def see_engine(one: OneModel, run: RunDir, phase: Phase | None, *, stopped: bool) -> EngineSeen:
    """Return what a check finds of one engine: its `phase`, and what the files of the run directory say."""
    step = engine_phase.read(run.engine_phase)
    found = failure.read(run.engine_failure)
    return EngineSeen(
        name=(step.model if step else "") or one.key,
        phase=phase,
        step=step,
        cpu_variant=engine_variant.summary(engine_variant.read(run.engine_variant)),
        required=one.required,
        on_demand=one.on_demand,
        stopped=stopped and phase is None,
        failure=found.summary if found else "",
    )


def read_failure(run: RunDir) -> tuple[str | None, str]:
    """Return that the appliance gave up, in one sentence (None while it has not), and the cause."""
    if not run.failure.exists():
        return None, ""
    found = failure.read(run.failure)
    return (found.summary if found else "") or "a program could not stay up", found.cause if found else ""
