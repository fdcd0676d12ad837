"""Status -> HTTP responses: liveness, readiness and startup probes, and the ping of each platform. Pure.

RunPod counts a cold start from the first 204 to the first 200, so 204 means only `starting` and never comes after a
200. For Kubernetes any 2xx is a success, so there the same path says 503 while starting.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from llama_gguf.health.state import Status
from llama_gguf.rundir.notices import notices_as_data
from llama_gguf.settings.health_paths import DETAILS, LIVE, READY, STARTUP
from llama_gguf.settings.platform import Platform
from llama_gguf.states import ServiceState
from llama_gguf.timestamps import utc_text

_PING = {
    ServiceState.STARTING: 204,
    ServiceState.READY: 200,
    ServiceState.UNREADY: 503,
    ServiceState.DRAINING: 503,
    ServiceState.FAILED: 500,
}


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response; a 204 has no body."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


def respond(path: str, ping_path: str, platform: Platform, status: Status) -> Response:
    """Respond to a GET of `path`; `ping_path` is the platform's health check as configured, and takes precedence."""
    if path == ping_path:
        starting = status.state is ServiceState.STARTING
        return Response(503 if platform == "kubernetes" and starting else _PING[status.state])
    if path == LIVE:
        # Liveness: fails only when a restart is required. Loading and draining are alive.
        return _probe_result(status, ok=status.state is not ServiceState.FAILED)
    if path == READY:
        return _probe_result(status, ok=status.state is ServiceState.READY)
    if path == STARTUP:
        return _probe_result(status, ok=status.was_ready and status.state is not ServiceState.FAILED)
    if path == DETAILS:
        code = 200 if status.state is ServiceState.READY else _not_ready(status)
        return Response(code, details(status), "application/json")
    return Response(404, b"not found\n")


def _probe_result(status: Status, *, ok: bool) -> Response:
    if ok:
        return Response(200, b"ok\n")
    return Response(_not_ready(status), f"{status.state}: {status.reason}\n".encode())


def _not_ready(status: Status) -> int:
    return 500 if status.state is ServiceState.FAILED else 503


def details(status: Status) -> bytes:
    """Return the status as JSON. It is public: `detail`, which can name files, is not in it."""
    progress = None
    if status.bytes_done is not None:
        progress = {"bytes_done": status.bytes_done, "bytes_total": status.bytes_total, "percent": percent(status)}
    return json.dumps(
        {
            "state": status.state,
            "phase": status.phase,
            "model": status.model,
            "reason": status.reason,
            "since": utc_text(status.since, "milliseconds"),
            "progress": progress,
            "was_ready": status.was_ready,
            "warnings": notices_as_data(status.notices),
            "cpu_variant": status.cpu_variant,
            "models": [
                {"name": one.name, "phase": one.phase, "required": one.required, "reason": one.reason}
                for one in status.models
            ],
        }
    ).encode()


def percent(status: Status) -> float | None:
    """Return how much of a download is done, where its size is known."""
    if status.bytes_done is None or not status.bytes_total:
        return None
    return round(min(100.0, 100 * status.bytes_done / status.bytes_total), 1)


PYWORKER_READY = "llama-gguf-on-load:"
PYWORKER_ERROR = "llama-gguf-on-error:"
"""Prefixes of a log line that Vast's PyWorker waits for (its on_load and on_error)."""


def pyworker_line(before: Status, after: Status) -> str | None:
    """Return the log line that notifies PyWorker of a change, or None for changes it does not wait for."""
    if after.state is ServiceState.READY and not before.was_ready:
        return f"{PYWORKER_READY} model ready"
    if after.state is ServiceState.FAILED and before.state is not ServiceState.FAILED:
        return f"{PYWORKER_ERROR} {after.reason}" + (f": {after.detail}" if after.detail else "")
    return None
