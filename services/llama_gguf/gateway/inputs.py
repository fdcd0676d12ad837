"""The gateway's inputs besides its settings, such as the engine's key, and the HTTP limits from its settings.

`read_runtime_inputs` reads files and the environment, and is called before the event loop runs.
"""

from __future__ import annotations

import importlib.metadata
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.errors import LaunchError
from llama_gguf.gateway.http1.header_rules import HttpLimits
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings.environment_value import secret

if TYPE_CHECKING:
    from llama_gguf.settings import Settings


@dataclass(frozen=True, slots=True)
class RuntimeInputs:
    """What the gateway reads from files and the environment besides its settings."""

    engine_keys: Mapping[str, str]  # by the engine's program
    engine_version: str
    host_name: str
    store_password: str | None = None


def read_runtime_inputs(snapshot: Snapshot, env: Mapping[str, str]) -> RuntimeInputs:
    """Read the engine's key and the other inputs. Raises LaunchError."""
    keys = {one.program: _read_key(snapshot.locations.run.of_engine(one.program).engine_key) for one in snapshot.models}
    try:
        engine_version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        engine_version = "unknown"
    variable = snapshot.settings.limits.store_password_env
    return RuntimeInputs(keys, engine_version, socket.gethostname(), secret(env, variable) if variable else None)


def _read_key(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(
            f"{path}: cannot read the engine's key: {error}",
            hint="`llama-gguf up` creates it before it starts the gateway",
        ) from error


def http_limits(settings: Settings) -> HttpLimits:
    """Return the limits for clients' requests."""
    gateway = settings.gateway
    return HttpLimits(
        max_body_bytes=gateway.max_body_bytes,
        max_headers=gateway.max_headers,
        max_header_line_bytes=gateway.max_header_line_bytes,
        max_request_line_bytes=gateway.max_request_line_bytes,
        header_seconds=gateway.timeouts.header_seconds,
        body_seconds=gateway.timeouts.body_seconds,
    )
