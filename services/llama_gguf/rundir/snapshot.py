"""The resolved settings as one JSON file, which the programs read instead of YAML and environment.

Holds no secret, because Settings holds none; mode 0600 all the same. `up` has validated everything, so the programs do
not validate again: building the pydantic models would cost each of them 0.15 s and 12 MB at every start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from llama_gguf import __version__
from llama_gguf.atomic_file import write_private_json
from llama_gguf.errors import ConfigError
from llama_gguf.settings.locations import RUN_DIR_VARIABLE, Locations, RunDir
from llama_gguf.settings.one_model import OneModel, each_model

if TYPE_CHECKING:
    from llama_gguf.settings.sections.settings import Settings


@dataclass(frozen=True)
class Snapshot:
    """The settings and all paths: what a program needs to start."""

    settings: Settings
    locations: Locations

    @property
    def models(self) -> tuple[OneModel, ...]:
        """Every model of the configuration."""
        return each_model(self.settings)

    def of_engine(self, program: str) -> Snapshot:
        """Return the settings and paths as if this engine's model were the only one. Raises ConfigError."""
        for one in self.models:
            if one.program == program:
                return Snapshot(one.settings, self.locations.of_engine(program))
        raise ConfigError(f"{program}: no model of the configuration has such a program")


MAPS = frozenset({"models", "variants"})
"""Fields whose value maps names to sections."""
JSON_VALUES = frozenset({"defaults"})
"""Fields whose value is JSON of the user's own."""


class PlainSection(SimpleNamespace):
    """A section of the settings as `read` returns it: its fields and values, without pydantic's methods."""

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"{name}: settings are read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name}: settings are read-only")


def write(snapshot: Snapshot, path: Path) -> None:
    """Write `snapshot` atomically, readable by the owner only."""
    document = {
        "version": __version__,
        "settings": snapshot.settings.model_dump(mode="json"),
        "locations": snapshot.locations.to_json(),
    }
    write_private_json(document, path, indent=1)


def read(path: Path) -> Snapshot:
    """Read what `write` wrote. Raises ConfigError when it is missing or another version wrote it.

    The settings have all the fields of `Settings` but none of pydantic's methods.
    """
    settings, locations = _load(path)
    return Snapshot(cast("Settings", _plain(settings)), locations)


def read_from_environment(env: Mapping[str, str]) -> Snapshot:
    """Read the snapshot of the run directory that `env` names. Raises ConfigError."""
    root = env.get(RUN_DIR_VARIABLE)
    if not root:
        raise ConfigError(f"{RUN_DIR_VARIABLE} is not set", hint="only `llama-gguf up` starts the programs")
    return read(RunDir(root=Path(root)).snapshot)


def read_validated(path: Path) -> Snapshot:
    """Read like `read`, with validated `Settings`; for commands, where the cost does not matter."""
    from llama_gguf.settings.sections.settings import parse  # noqa: PLC0415 - pydantic, which `read` does without

    settings, locations = _load(path)
    return Snapshot(parse(settings), locations)


def _load(path: Path) -> tuple[dict[str, object], Locations]:
    try:
        document = json.loads(path.read_bytes())
        version = document["version"]
        if version == __version__:
            return document["settings"], Locations.from_json(document["locations"])
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no snapshot of the settings", hint="only `llama-gguf up` starts the programs"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: the snapshot of the settings is unusable: {error!r}") from error
    raise ConfigError(
        f"{path}: the snapshot of the settings is unusable: version {version} wrote it, this is {__version__}",
        hint="start the appliance again with `llama-gguf up`",
    )


def _plain(value: Any, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    if name in JSON_VALUES:
        return value
    if isinstance(value, dict):
        children = {key: _plain(child, "" if name in MAPS else key) for key, child in value.items()}
        return children if name in MAPS else PlainSection(**children)
    if isinstance(value, list):
        return tuple(_plain(child) for child in value)
    return value
