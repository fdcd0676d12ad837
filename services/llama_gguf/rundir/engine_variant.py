"""RunDir.engine_variant: which variant of ggml's CPU code the engine runs, and which ones crashed on this machine.

Written by the engine's program alone: when it starts, from how the engine before it exited, and just before it becomes
llama-server. Read by the gateway, the listener, the health server and commands. The rules about it are pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llama_gguf.atomic_file import write_private_json

from .exits import ProcessExit

QUERY_PID = -1
"""In place of a pid: llama-server crashed when the engine's program queried it, before it became the engine."""
_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Rejected:
    """A variant that crashed by an illegal instruction.

    `pid` is that of the engine's process; 0 for one of an earlier run, QUERY_PID where it was no engine yet.
    """

    variant: str
    sha256: str = ""  # of its library
    pid: int = 0


@dataclass(frozen=True, slots=True)
class EngineVariant:
    """The variant in use, and the ones left.

    `variant` is "" and `pid` 0 while no llama-server runs, so that no later process is taken for one that has exited.
    """

    variant: str = ""
    pid: int = 0
    sha256: str = ""  # of its library
    cpu: str = ""  # fingerprint of the machine's CPU
    pinned: bool = False
    lower: tuple[str, ...] = ()  # what else this CPU supports, best first
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
        """Those rejected since the appliance was started."""
        return tuple(item for item in self.rejected if item.pid)


def apply_exits(record: EngineVariant, history: Iterable[ProcessExit]) -> EngineVariant:
    """Return the record for the next engine program: no variant in use, and one more rejected if it crashed.

    Only an illegal instruction of the very process that ran the variant rejects it, and only if another one is left:
    when the lowest fails too, the variants are not to blame.
    """
    own = [end for end in history if record.pid and end.pid == record.pid]  # the kernel can reuse a pid
    if own and own[-1].status.illegal_instruction:
        record = reject(record, record.pid)
    return replace(record, variant="", pid=0, sha256="", lower=())


def reject(record: EngineVariant, pid: int) -> EngineVariant:
    """Return `record` with the variant in use rejected, where another one is left; else unchanged."""
    if not record.can_step_down:
        return record
    crashed = Rejected(record.variant, record.sha256, pid)
    return replace(record, rejected=(*record.rejected, crashed))


def is_mitigated(record: EngineVariant | None, end: ProcessExit) -> bool:
    """Return whether the next start avoids the cause of this exit; `record` can be from before or after that start."""
    if record is None or not end.pid or not end.status.illegal_instruction:
        return False
    pending = record.pid == end.pid and record.can_step_down
    return pending or any(item.pid == end.pid for item in record.rejected)


def summary(record: EngineVariant | None) -> dict[str, Any] | None:
    """Return what operators and clients see, as JSON values; None where llama-server chooses its variant itself."""
    if record is None or not (record.variant or record.rejected):
        return None
    return {"name": record.variant or None, "pinned": record.pinned, "rejected": record.rejected_names}


def write(record: EngineVariant, path: Path) -> None:
    """Write `record` atomically, readable by the owner only."""
    write_private_json(asdict(record), path)


def read(path: Path) -> EngineVariant | None:
    """Return what `write` wrote, None where there is none or it is unusable."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_BYTES))
        rejected = tuple(Rejected(**item) for item in values.pop("rejected"))
        found = EngineVariant(**values | {"lower": tuple(values["lower"]), "rejected": rejected})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found if _is_valid(found) else None


def _is_valid(record: EngineVariant) -> bool:
    texts = [record.variant, record.sha256, record.cpu, *record.lower]
    texts += [text for item in record.rejected for text in (item.variant, item.sha256)]
    pids = [record.pid, *(item.pid for item in record.rejected)]
    return all(isinstance(text, str) for text in texts) and all(type(pid) is int for pid in pids)
