"""Coroutines that run without a task for as long as they can."""

from __future__ import annotations

import asyncio
import logging

import pytest

from llama_gguf.gateway.http1.inline_task import Completion, InlineTask


class Trace:
    """Notes what happened, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def end(self) -> None:
        self.seen.append("end")


async def test_it_runs_at_once_and_is_resumed_in_the_call_that_sets_the_signal() -> None:
    trace, signal = Trace(), Completion()

    async def work() -> None:
        trace.seen.append("begin")
        await signal
        trace.seen.append("woken")

    job = InlineTask(work(), trace.end)
    job.step()
    assert trace.seen == ["begin"]
    signal.set()
    assert trace.seen == ["begin", "woken", "end"]
    signal.set()
    job.cancel()
    assert trace.seen[-1] == "end"


async def test_a_signal_that_is_set_is_not_waited_for() -> None:
    trace, signal = Trace(), Completion()
    signal.set()

    async def work() -> None:
        await signal

    InlineTask(work(), trace.end).step()
    assert trace.seen == ["end"]


async def test_what_waits_for_anything_else_goes_on_as_a_task() -> None:
    trace, signal = Trace(), Completion()

    begun_in = asyncio.current_task()

    async def work() -> None:
        assert asyncio.current_task() is begun_in
        await asyncio.sleep(0)
        assert asyncio.current_task() not in (None, begun_in)
        async with asyncio.timeout(5):
            await asyncio.sleep(0.01)
        trace.seen.append("slept")
        await signal
        trace.seen.append("woken")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Completion()

    InlineTask(work(), trace.end).step()
    await asyncio.sleep(0.05)
    assert trace.seen == ["slept"]
    signal.set()
    await asyncio.sleep(0.1)
    assert trace.seen == ["slept", "woken", "end"]


@pytest.mark.parametrize("as_task", [False, True])
@pytest.mark.parametrize("waits_in_finally", [False, True])
async def test_cancelling_raises_where_it_waits(as_task: bool, waits_in_finally: bool) -> None:
    trace = Trace()

    async def work() -> None:
        if as_task:
            await asyncio.sleep(0)
        try:
            await Completion()
        except asyncio.CancelledError:
            trace.seen.append("cancelled")
            raise
        finally:
            if waits_in_finally:
                await asyncio.sleep(0)
            trace.seen.append("cleaned")

    job = InlineTask(work(), trace.end)
    job.step()
    if as_task:
        await asyncio.sleep(0.01)
    job.cancel()
    await asyncio.sleep(0.01)
    assert trace.seen == ["cancelled", "cleaned", "end"]


async def test_cancelling_while_it_waits_for_a_future() -> None:
    trace = Trace()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            trace.seen.append("cleaned")

    job = InlineTask(work(), trace.end)
    job.step()
    job.cancel()
    await asyncio.sleep(0.01)
    assert trace.seen == ["cleaned", "end"]


async def test_exceptions_of_what_it_waits_for_reach_it() -> None:
    trace = Trace()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        with pytest.raises(ValueError, match="no"):
            await future
        trace.seen.append("caught")

    InlineTask(work(), trace.end).step()
    future.set_exception(ValueError("no"))
    await asyncio.sleep(0.01)
    assert trace.seen == ["caught", "end"]


@pytest.mark.parametrize("as_task", [False, True])
async def test_a_defect_ends_the_job_and_is_logged(caplog: pytest.LogCaptureFixture, as_task: bool) -> None:
    trace = Trace()

    async def work() -> None:
        if as_task:
            await asyncio.sleep(0)
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        InlineTask(work(), trace.end).step()
        await asyncio.sleep(0.01)
    assert trace.seen == ["end"]
    assert "coroutine failed" in caplog.text
