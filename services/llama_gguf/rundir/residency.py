"""RunDir.residency: which engines the gateway has stopped on purpose, because their models are not wanted now.

Written by the gateway; read by the health server and commands, for which such an engine is none that is missing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_gguf.atomic_file import write_private_json
from llama_gguf.states import Residency


@dataclass(frozen=True, slots=True)
class EngineResidency:
    """What the gateway does with one engine."""

    state: Residency

    @property
    def wanted(self) -> bool:
        """Whether something is wrong if the engine does not serve: it is neither stopped nor on its way."""
        return self.state in {Residency.LOADED, Residency.DRAINING}


def write(engines: dict[str, EngineResidency], path: Path) -> None:
    """Write the residency of each engine's program, atomically."""
    write_private_json({program: asdict(one) for program, one in engines.items()}, path)


def read(path: Path) -> dict[str, EngineResidency]:
    """Return what `write` wrote; nothing where there is no such file, or it is unusable."""
    try:
        found = json.loads(path.read_bytes())
        return {program: EngineResidency(Residency(one["state"])) for program, one in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}
