"""Settling what was reserved to what was used, also after the request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.awaiting import finished
from support.charging import GENEROUS, charged, leave
from support.http_client import request_bytes
from support.running_gateway import Start, chat


async def test_what_is_still_being_counted_at_the_end_is_told_as_it_was_guessed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_gguf.gateway.relay.settlement._CLOSE_SECONDS", 0.1)
    running = await start(GENEROUS)
    await leave(running, "/v1/chat/completions", chat(stream=True, hang_after=2, clings=2), after=b"\n\n")
    await running.until(lambda: running.gateway.pipeline.in_flight == 0)
    await running.gateway.stop()
    (line,) = await running.lines(1)
    assert (line["outcome"], line["tokens_out"]) == ("client_gone", 2)
    assert running.gateway.usage.month_tokens("tester") == line["tokens_in"] + 2 == await charged(running)


async def test_a_request_that_is_being_counted_holds_no_place_of_its_keys_limits(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start({"limits": {"concurrency": 1, "tokens_per_minute": 1_000_000}})
    gate = asyncio.Event()
    count = running.gateway.backends.first.usage.tokens

    async def slow(*arguments: Any) -> Any:
        await gate.wait()
        return await count(*arguments)

    monkeypatch.setattr(running.gateway.backends.first.usage, "tokens", slow)
    await leave(running, "/v1/chat/completions", chat(stream=True, hang_after=1), after=b"\n\n")
    await running.until(lambda: running.gateway.pipeline.in_flight == 0)
    assert (await running.chat()).status == 200
    assert len(await running.lines(1)) == 1  # the first is told when it has been counted
    gate.set()
    lines = await running.lines(2)
    assert [line["outcome"] for line in lines] == ["ok", "client_gone"]
    assert lines[1]["total_ms"] < 2000
    assert await charged(running) == sum(line["tokens_in"] + line["tokens_out"] for line in lines)


async def test_settling_with_a_shared_store_survives_the_request(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is slow, and the client has left long before it answers."""
    running = await start(GENEROUS)
    settled: list[int] = []
    settle = running.gateway.limiter.settle

    async def slow(charge: Any, tokens: int) -> None:
        await asyncio.sleep(0.2)
        settled.append(tokens)
        await finished(settle(charge, tokens))
        if len(settled) == 2:
            raise OSError("the store is gone")

    monkeypatch.setattr(running.gateway.limiter, "settle", slow)
    for _ in range(2):
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(hang_after=-1)))
        asked = len(running.engine.asked)
        await running.until(lambda asked=asked: len(running.engine.asked) > asked)  # type: ignore[misc]
        writer.close()
        await running.until(lambda: running.gateway.pipeline.in_flight == 0)
    assert settled != [0, 0]
    await running.gateway.backends.first.settlement.close()
    assert len(settled) == 2
    assert "could not settle" in caplog.text
