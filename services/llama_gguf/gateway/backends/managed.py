"""One model that can be loaded and unloaded: its state, and what is known about loading it."""

from __future__ import annotations

import logging
import time

from llama_gguf.gateway.backends.backend import ModelBackend
from llama_gguf.gateway.residency.model_state import ModelState, Need
from llama_gguf.logs import fields
from llama_gguf.states import Residency

_log = logging.getLogger(__name__)

_START_SECONDS = 1.0
_LOAD_BYTES_PER_SECOND = 1_000_000_000  # a guess before the first load: a fast disk
_UNKNOWN = Need(0, 0)


class ManagedModel:
    """One model: its state, and what is known about loading it."""

    def __init__(self, backend: ModelBackend) -> None:
        self.backend = backend
        self.program = backend.one.program
        self.state = Residency.LOADING
        self.since = time.monotonic()
        self.loaded_at = 0.0
        self.need = self.measured = _UNKNOWN
        self.need_known = False  # planned or measured, not assumed
        self.pinned = False
        self.load_requested_at: float | None = None  # by an operator, and not loaded since
        self.unload_requested = False
        self.failures = 0
        self.retry_at: float | None = None
        self.impossible: str | None = None  # why it never fits, for operators
        self.impossible_for_clients = ""  # the same, without the names of other models
        self.problem = ""  # why its engine could not be started at all
        self.was_stopped = False  # by the gateway: then health does not miss it
        self.stopping = False  # it has failed, and its engine may still run

    def enter(self, state: Residency, reason: str = "") -> None:
        """Change the state."""
        if state is not self.state:
            _log.info("model is %s", state, extra=fields(model=self.backend.name, before=self.state, reason=reason))
        self.state = self.backend.managed = state
        self.since = time.monotonic()

    def set_need(self, need: Need) -> None:
        """Set the memory that it is counted with."""
        self.need = need
        self.backend.planned_bytes = (need.device, need.host)

    @property
    def _guessed_load_seconds(self) -> float:
        return _START_SECONDS + (self.need.device + self.need.host) / _LOAD_BYTES_PER_SECOND

    def seen(self) -> ModelState:
        """Return what the policy sees of it."""
        demand, one = self.backend.demand, self.backend.one
        return ModelState(
            name=self.program,
            need=self.need,
            state=Residency.UNLOADING if self.stopping else self.state,
            pinned=self.pinned,
            always=bool(one.key) and not one.on_demand,
            unload_requested=self.unload_requested,
            waiting=demand.waiting + (self.load_requested_at is not None),
            oldest_waiting_since=demand.oldest_waiting_since or self.load_requested_at,
            running=demand.running,
            since=self.since,
            last_used=demand.last_used,
            loaded_at=self.loaded_at,
            load_seconds=self.backend.load_seconds or self._guessed_load_seconds,
            unload_after=one.unload_after_seconds,
            retry_at=self.retry_at,
        )
