"""Runs a request's coroutine without an asyncio task, as long as it awaits nothing but the engine's response.

A task costs a fifth of a plain request: its creation, one iteration of the event loop to start it, and one more to wake
it. An InlineTask starts its coroutine in the call that creates it, and resumes it in the call that sets the Completion
it awaits. When the coroutine awaits anything else (a slot, a connection, a thread), it continues in a real task. Until
then there is no current task: `await continue_as_task()` before anything that needs one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

_log = logging.getLogger(__name__)


class Completion:
    """An event that is set once and that at most one coroutine awaits."""

    __slots__ = ("is_set", "waiter")

    def __init__(self) -> None:
        self.is_set = False
        self.waiter: Callable[[], None] | None = None  # called by `set`

    def set(self) -> None:
        """Resume the waiter, now; later calls do nothing."""
        if self.is_set:
            return
        self.is_set = True
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter()

    def __await__(self) -> Generator[Any, None, None]:
        if not self.is_set:
            yield self


async def continue_as_task() -> None:
    """Continue in a task, from the next iteration of the event loop: for code with timeouts or that needs its task."""
    await asyncio.sleep(0)


class InlineTask:
    """Runs one coroutine. `on_end` is called when it has ended, however it ended; the coroutine should not raise."""

    __slots__ = ("_completion", "_coroutine", "_on_end", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, None], on_end: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_end = on_end
        self._completion: Completion | None = None
        self._task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Raise CancelledError where the coroutine waits."""
        if self._task is not None:
            self._task.cancel()
        elif self._completion is not None:
            self._completion.waiter = None
            self.step(asyncio.CancelledError())

    def step(self, error: BaseException | None = None) -> None:
        """Resume the coroutine until it waits or ends; `error` is raised where it waits now."""
        self._completion = None
        try:
            waited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self._on_end()
        except Exception:  # noqa: BLE001 - a bug in one request must not reach the connection that resumed it
            _log.exception("a request's coroutine failed")
            self._on_end()
        else:
            if isinstance(waited, Completion):
                self._completion = waited
                waited.waiter = self.step
            else:
                self._task = asyncio.get_running_loop().create_task(_run_as_task(self._coroutine, waited))
                self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # The task was cancelled before its first step.
        if inspect.getcoroutinestate(self._coroutine) != inspect.CORO_CLOSED:
            self._task = None
            self.step(asyncio.CancelledError())
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a request's coroutine failed", exc_info=error)
        self._on_end()


async def _run_as_task(coroutine: Coroutine[Any, Any, None], waited: object) -> None:
    await _continue(coroutine, waited)


@types.coroutine
def _continue(coroutine: Coroutine[Any, Any, None], waited: object) -> Generator[Any, Any, None]:
    """Run a coroutine that already awaits `waited`; to the task around it, it looks like the task's own."""
    while True:
        error: BaseException | None = None
        value = None
        try:
            if isinstance(waited, Completion):
                yield from _as_future(waited)
            else:
                value = yield waited
        except BaseException as raised:  # noqa: BLE001 - passed on to the coroutine, which handles it
            error = raised
        try:
            waited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration:
            return


def _as_future(completion: Completion) -> Generator[Any, None, None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    completion.waiter = wake
    yield from future
