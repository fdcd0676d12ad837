"""RunDir.engine_reduction: with how much less than configured the engine runs, after it ran out of memory.

Written by the engine's program alone, and only where `engine.shrink` allows something: when it starts, from how the
engine before it exited, and just before it becomes llama-server. Read by the listener. Holds for one `up`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from llama_gguf.atomic_file import write_private_json

from .exits import ProcessExit

Memory = Literal["device", "host"]
_MAX_BYTES = 65_536
_NAMES = frozenset({"slots", "context_per_slot", "cache_type_k", "cache_type_v", "gpu_layers"})


@dataclass(frozen=True, slots=True)
class EngineReduction:
    """The reduced engine settings, the exits that led to them, and what else could be reduced.

    `pid` is that of the engine in use, 0 while none runs.
    """

    values: dict[str, int | str] = field(default_factory=dict)
    after: tuple[int, ...] = ()  # pids of the engines that ran out of memory
    pid: int = 0
    left: tuple[Memory, ...] = ()  # of which memory the next start can need less
    layers: int = 0  # of the model
    quantisable: bool = True  # whether its cache can have another type


def is_mitigated(record: EngineReduction | None, end: ProcessExit, failed: Memory | None) -> bool:
    """Return whether the next start needs less than the engine that exited so; `failed` is what it ran out of.

    `record` can be from before or after that start.
    """
    if record is None or not end.pid:
        return False
    return end.pid in record.after or (record.pid == end.pid and failed in record.left)


def write(record: EngineReduction, path: Path) -> None:
    """Write `record` atomically, readable by the owner only."""
    write_private_json(asdict(record), path)


def read(path: Path) -> EngineReduction | None:
    """Return what `write` wrote, None where there is none or it is unusable."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_BYTES))
        found = EngineReduction(**values | {"after": tuple(values["after"]), "left": tuple(values["left"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if _is_valid(found) else None


def _is_valid(record: EngineReduction) -> bool:
    if not isinstance(record.values, dict) or not set(record.values) <= _NAMES:
        return False
    numbers = [record.pid, record.layers, *record.after]
    return all(type(number) is int for number in numbers) and all(
        type(value) is (str if name.startswith("cache_type") else int) for name, value in record.values.items()
    )
