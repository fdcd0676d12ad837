"""However often /metrics is asked for, the engine is asked once a second."""

from __future__ import annotations

import asyncio

from llama_gguf.gateway.telemetry.engine_series import FRESH_SECONDS, EngineSeries


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_engine_is_asked_once_a_second() -> None:
    clock = Clock()
    texts = iter([b"one", None, b"three"])

    async def fetch() -> bytes | None:
        await asyncio.sleep(0)
        return next(texts)

    series = EngineSeries(fetch, clock=clock)
    assert await asyncio.gather(*(series.text() for _ in range(20))) == [b"one"] * 20
    clock.now = FRESH_SECONDS
    assert await asyncio.gather(*(series.text() for _ in range(20))) == [None] * 20  # failures count too
    clock.now = 2 * FRESH_SECONDS
    assert await series.text() == b"three"


async def test_one_that_stops_waiting_does_not_keep_the_others_waiting() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def fetch() -> bytes | None:
        begun.set()
        await may_end.wait()
        return b"text"

    series = EngineSeries(fetch)
    first = asyncio.create_task(series.text())
    await begun.wait()
    second = asyncio.create_task(series.text())
    first.cancel()
    may_end.set()
    assert await second == b"text"
