"""Runs a request's coroutine without an asyncio task for as long as all it waits for is the engine's answer.

A task costs a fifth of a plain request: its creation, one turn of the loop to start it, and one more to wake it. An
InlineTask starts its coroutine in the call that creates it, and resumes it in the very call that sets the Completion it
waits for. When the coroutine waits for anything else (a slot, a connection, a thread), it goes on in a real task. Until
then there is no current task: `await continue_as_task()` before what needs one.
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
    """Something that happens once and that at most one coroutine waits for."""

    __slots__ = ("is_set", "waiter")

    def __init__(self) -> None:
        self.is_set = False
        self.waiter: Callable[[], None] | None = None  # called when the signal is set

    def set(self) -> None:
        """Let the waiter go on, now; later calls do nothing."""
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
    """Go on in a task, from the next turn of the event loop: for code that has timeouts or wants the current task."""
    await asyncio.sleep(0)


class InlineTask:
    """One coroutine on its way. `on_end` is called when it has ended, whichever way; it is expected not to raise."""

    __slots__ = ("_coroutine", "_on_end", "_signal", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, None], on_end: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_end = on_end
        self._signal: Completion | None = None
        self._task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Have CancelledError raised where the coroutine waits."""
        if self._task is not None:
            self._task.cancel()
        elif self._signal is not None:
            self._signal.waiter = None
            self.step(asyncio.CancelledError())

    def step(self, error: BaseException | None = None) -> None:
        """Run until the coroutine waits for something, or ends; `error` is raised where it waits now."""
        self._signal = None
        try:
            waited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self._on_end()
        except Exception:  # noqa: BLE001 - a defect in one request must not reach the connection that resumed it
            _log.exception("a request's coroutine failed")
            self._on_end()
        else:
            if isinstance(waited, Completion):
                self._signal = waited
                waited.waiter = self.step
            else:
                self._task = asyncio.get_running_loop().create_task(_go_on(self._coroutine, waited))
                self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if (
            inspect.getcoroutinestate(self._coroutine) != inspect.CORO_CLOSED
        ):  # the task was cancelled before it ran at all
            self._task = None
            self.step(asyncio.CancelledError())
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a request's coroutine failed", exc_info=error)
        self._on_end()


async def _go_on(coroutine: Coroutine[Any, Any, None], waited: object) -> None:
    await _resumed(coroutine, waited)


@types.coroutine
def _resumed(coroutine: Coroutine[Any, Any, None], waited: object) -> Generator[Any, Any, None]:
    """Drive a coroutine that already waits for `waited`; to the task around it, it looks like its own."""
    while True:
        error: BaseException | None = None
        value = None
        try:
            if isinstance(waited, Completion):
                yield from _as_future(waited)
            else:
                value = yield waited
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the coroutine's to handle
            error = raised
        try:
            waited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration:
            return


def _as_future(signal: Completion) -> Generator[Any, None, None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    signal.waiter = wake
    yield from future
