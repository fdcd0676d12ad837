"""One timer for all deadlines, instead of several timers for each request.

Deadlines here are seconds to minutes; being late by a tick (a tenth of a second) makes no difference, and checking a
set ten times a second costs less than arming and cancelling timers thousands of times a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

_log = logging.getLogger(__name__)


class HasDeadline(Protocol):
    """Something with a deadline."""

    def check(self, now: float) -> None:
        """Act if the deadline has passed; `now` is monotonic."""


class DeadlineChecker:
    """Calls `check` of everything registered, once a tick. Belongs to one event loop."""

    def __init__(self, *, tick_seconds: float = 0.1) -> None:
        self._tick = tick_seconds
        self._watched: set[HasDeadline] = set()
        self._handle: asyncio.TimerHandle | None = None

    def add(self, watched: HasDeadline) -> None:
        """Start checking; adding twice is the same as once."""
        self._watched.add(watched)

    def discard(self, watched: HasDeadline) -> None:
        """Stop checking."""
        self._watched.discard(watched)

    def start(self) -> None:
        """Start ticking."""
        self._handle = asyncio.get_running_loop().call_later(self._tick, self._run)

    def stop(self) -> None:
        """Stop ticking."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        for watched in tuple(self._watched):
            try:
                watched.check(now)
            except Exception:  # noqa: BLE001 - a bug in one check must not stop all timeouts
                _log.exception("a timeout check failed")
        self._handle = loop.call_later(self._tick, self._run)
