"""An event loop with a virtual clock: sleeping takes no time, and a day of waiting is tested in milliseconds.

When every task waits, the clock jumps to the next timer. Sockets and threads work too, but real time that passes in
them does not move the clock. A program that waits for nothing at all is an error instead of a hang.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(AssertionError):
    """A deadlock: every task waits, and nothing can wake one."""


class _JumpingSelector(selectors.DefaultSelector):
    """Polls the sockets without blocking; where the loop would sleep, it advances the clock."""

    clock: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            # Only a signal or another thread could wake the loop now; give it a moment, then call it a deadlock.
            events = super().select(1.0)
            if not events:
                raise DeadlockError("every task waits, and there is no timer")
            return events
        self.clock.advance(timeout)
        return []


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps. `loop.time()` is the virtual time, in seconds from `start`."""

    def __init__(self, start: float = 0.0) -> None:
        selector = _JumpingSelector()
        selector.clock = self
        self._now = start
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self._now += seconds


def run(program: Coroutine[Any, Any, T], *, start: float = 0.0) -> T:
    """Run `program` on a virtual clock and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(start)) as runner:
        return runner.run(program)
