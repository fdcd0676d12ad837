"""RunDir.engine_auto: the values of engine settings that are `auto`, chosen at the start, and the reason for each.

Written by the engine's program alone, and only where a setting is `auto`. `in_force` is what everybody else reads: it
adds with how much less the engine runs after it ran out of memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.atomic_file import write_private_json

from . import engine_reduction

if TYPE_CHECKING:
    from llama_gguf.settings import RunDir

_MAX_BYTES = 65_536
_NUMBERS = frozenset({"slots", "context_per_slot", "batch_size", "ubatch_size"})
_TEXTS = frozenset({"cache_type_k", "cache_type_v"})


@dataclass(frozen=True, slots=True)
class ChosenValues:
    """The values, and by setting why; `fits`: by the plan the model fits with them."""

    values: dict[str, int | str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    fits: bool = True


def in_force(run: RunDir) -> dict[str, int | str]:
    """Return the engine settings with which the engine of `run` runs other than written in the configuration."""
    chosen, reduced = read(run.engine_auto), engine_reduction.read(run.engine_reduction)
    return {**(chosen.values if chosen else {}), **(reduced.values if reduced else {})}


def write(record: ChosenValues, path: Path) -> None:
    """Write `record` atomically, readable by the owner only."""
    write_private_json(asdict(record), path)


def read(path: Path) -> ChosenValues | None:
    """Return what `write` wrote, None where there is none or it is unusable."""
    try:
        with path.open("rb") as file:
            found = ChosenValues(**json.loads(file.read(_MAX_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return found if _is_valid(found) else None


def _is_valid(record: ChosenValues) -> bool:
    if not (isinstance(record.values, dict) and isinstance(record.reasons, dict) and isinstance(record.fits, bool)):
        return False
    if not all(isinstance(reason, str) for reason in record.reasons.values()):
        return False
    return all(
        (name in _NUMBERS and type(value) is int and value > 0) or (name in _TEXTS and isinstance(value, str))
        for name, value in record.values.items()
    )
