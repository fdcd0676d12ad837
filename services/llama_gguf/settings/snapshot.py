"""What `up` resolved, as one JSON file that the programs read instead of YAML and environment.

Holds no secret, because Settings holds none. Written 0600 all the same.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from llama_gguf.errors import ConfigError

from .locations import Locations
from .root import Settings

RUN_DIR_VARIABLE = "LLAMA_GGUF_RUN_DIR"
"""Variable by which `up` tells its programs the run directory."""


class Snapshot(BaseModel):
    """The settings and where everything lies: all a program needs to start."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    locations: Locations


def write(snapshot: Snapshot, path: Path) -> None:
    """Write `snapshot` atomically, readable by the owner only."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(snapshot.model_dump_json(indent=1))
    temporary.replace(path)


def read(path: Path) -> Snapshot:
    """Read what `write` wrote. Raises ConfigError when it is missing or not what this version writes."""
    try:
        return Snapshot.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no snapshot of the settings", hint="programs are started by `llama-gguf up`"
        ) from None
    except ValidationError as error:
        raise ConfigError(f"{path}: the snapshot of the settings is unusable: {error}") from error
