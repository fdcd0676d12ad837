"""RunDir.engine_variant: which variant of ggml's CPU code the engine runs, and which ones crashed on this machine.

Written by the engine's program alone: at its beginning, when it learns how the engine before it ended, and just before
it becomes llama-server. Read by whoever judges or shows the engine. The rules about it are pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llama_gguf.atomic_file import write_private_json

from .exits import End

ASKED = -1
"""In place of a pid: llama-server crashed when the engine's program asked it something, before it became the engine."""
_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Rejected:
    """A variant that crashed by an illegal instruction.

    `pid` is of the engine's process that did; 0 for one of an earlier run, ASKED where it was no engine yet.
    """

    variant: str
    sha256: str = ""  # of its library
    pid: int = 0


@dataclass(frozen=True, slots=True)
class EngineVariant:
    """What is in use, and what could come next.

    `variant` is "" and `pid` 0 while no llama-server runs: the process that reads this back later must never be taken
    for one that is long gone.
    """

    variant: str = ""
    pid: int = 0
    sha256: str = ""  # of its library
    cpu: str = ""  # fingerprint of the machine's CPU
    pinned: bool = False
    lower: tuple[str, ...] = ()  # what this CPU supports besides, best first
    rejected: tuple[Rejected, ...] = ()

    @property
    def can_step_down(self) -> bool:
        """Whether another variant is left to be tried."""
        return bool(self.variant and self.lower and not self.pinned)

    @property
    def rejected_names(self) -> list[str]:
        """The names of the rejected variants, in the order in which they were tried."""
        return list(dict.fromkeys(item.variant for item in self.rejected))

    @property
    def rejected_now(self) -> tuple[Rejected, ...]:
        """Those that were rejected since the appliance was started."""
        return tuple(item for item in self.rejected if item.pid)


def settle(record: EngineVariant, history: Iterable[End]) -> EngineVariant:
    """Return what is so when the next engine program begins: no variant in use, and one more rejected if that is due.

    Only an illegal instruction of the very process that ran the variant rejects it, and only if another one is left:
    when the lowest fails too, the variants are not to blame.
    """
    own = [end for end in history if record.pid and end.pid == record.pid]  # the kernel may have given a pid twice
    if own and own[-1].exit.illegal_instruction:
        record = reject(record, record.pid)
    return replace(record, variant="", pid=0, sha256="", lower=())


def reject(record: EngineVariant, pid: int) -> EngineVariant:
    """Return `record` with the variant in use rejected, where another one is left; else as it was."""
    if not record.can_step_down:
        return record
    crashed = Rejected(record.variant, record.sha256, pid)
    return replace(record, rejected=(*record.rejected, crashed))


def is_healed(record: EngineVariant | None, end: End) -> bool:
    """Return whether the next start avoids what ended the engine, whichever side of that start this is asked on."""
    if record is None or not end.pid or not end.exit.illegal_instruction:
        return False
    waits = record.pid == end.pid and record.can_step_down
    return waits or any(item.pid == end.pid for item in record.rejected)


def summary(record: EngineVariant | None) -> dict[str, Any] | None:
    """Return what people and clients are shown, as JSON values; None where llama-server makes its own choice."""
    if record is None or not (record.variant or record.rejected):
        return None
    return {"name": record.variant or None, "pinned": record.pinned, "rejected": record.rejected_names}


def write(record: EngineVariant, path: Path) -> None:
    """Write `record` atomically, readable by the owner only."""
    write_private_json(asdict(record), path)


def read(path: Path) -> EngineVariant | None:
    """Return what `write` wrote, or None when there is none or it is unusable."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_BYTES))
        rejected = tuple(Rejected(**item) for item in values.pop("rejected"))
        found = EngineVariant(**values | {"lower": tuple(values["lower"]), "rejected": rejected})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found if _is_sound(found) else None


def _is_sound(record: EngineVariant) -> bool:
    texts = [record.variant, record.sha256, record.cpu, *record.lower]
    texts += [text for item in record.rejected for text in (item.variant, item.sha256)]
    pids = [record.pid, *(item.pid for item in record.rejected)]
    return all(isinstance(text, str) for text in texts) and all(type(pid) is int for pid in pids)
