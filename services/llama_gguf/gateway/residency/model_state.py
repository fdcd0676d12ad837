"""What the residency policy knows of each model and of the memory, and what it asks for. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llama_gguf.states import Residency


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model uses while it is in memory."""

    device: int
    host: int


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that all models together can use. None = not known, so no bound."""

    device: int | None
    host: int | None


@dataclass(slots=True)
class ModelState:
    """One model as its driver sees it now. Times are of one monotonic clock.

    `since`: when it entered its state. `last_used`: when a request last entered or left it. `load_seconds`: measured at
    its last load, an estimate before. `always` models give way to nobody, `pinned` ones are not unloaded when idle
    either. `unload_requested`: an operator's wish, which outranks both. `retry_at`: no load before, after one failed.
    An operator's wish to load is a request that waits, as any other.
    """

    name: str
    need: Need
    state: Residency
    pinned: bool = False
    always: bool = False
    unload_requested: bool = False
    waiting: int = 0
    oldest_waiting_since: float | None = None
    running: int = 0
    since: float = 0.0
    last_used: float = 0.0
    loaded_at: float = 0.0
    load_seconds: float = 10.0
    unload_after: float | None = None
    retry_at: float | None = None

    @property
    def resident(self) -> bool:
        """Whether it uses memory, or is about to."""
        return self.state not in (Residency.UNLOADED, Residency.FAILED)

    @property
    def idle(self) -> bool:
        """Whether no request is in it or waits for it."""
        return not self.running and not self.waiting

    @property
    def evictable(self) -> bool:
        """Whether it can be made to give way to another."""
        return self.state in (Residency.LOADED, Residency.DRAINING) and not self.pinned and not self.always


@dataclass(frozen=True, slots=True)
class Rules:
    """When one model gives way to another.

    A model with requests serves for `min_resident_seconds`, and for as long as the swap costs. After `max_age_seconds`
    of waiting, others no longer have to wait for all that queued for it before it was loaded.
    """

    max_age_seconds: float
    min_resident_seconds: float
    unload_seconds: float = 1.0  # what an unload is expected to take


@dataclass(frozen=True, slots=True)
class Action:
    """What the driver is to do, in this order. `reason` is for the log."""

    kind: Literal["load", "drain", "unload", "resume"]
    name: str
    reason: str
