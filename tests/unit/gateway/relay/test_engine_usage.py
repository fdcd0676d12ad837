"""Counts that a response leaves out, queried from the engine afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.charging import GENEROUS, charged, leave
from support.fake_engine import CACHED_TOKENS, PROMPT_TOKENS
from support.running_gateway import Start, chat


@pytest.mark.parametrize("streams", [False, True])
async def test_counts_that_an_answer_leaves_out_are_asked_for(start: Start, streams: bool) -> None:
    running = await start(GENEROUS)
    await running.ask("POST", "/v1/chat/completions", body=chat(stream=streams, tokens=7, timings=False))
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_cached"], line["tokens_out"]) == (PROMPT_TOKENS, CACHED_TOKENS, 7)
    assert await charged(running) == PROMPT_TOKENS + 7


@pytest.mark.parametrize("streams", [False, True])
async def test_of_an_engine_that_cannot_tell_the_estimate_stands(start: Start, streams: bool) -> None:
    running = await start(GENEROUS, book=False)
    await running.ask("POST", "/v1/chat/completions", body=chat(stream=streams, tokens=7, timings=False))
    line = (await running.lines(1))[0]
    assert await charged(running) == line["tokens_in"] + line["tokens_out"] > 10
    assert running.engine.counts == 1


async def test_an_engine_that_works_on_is_asked_again(start: Start) -> None:
    running = await start(GENEROUS)
    await leave(running, "/v1/chat/completions", chat(hang_after=-1, unseen=9, clings=0.25))
    assert (await running.lines(1))[0]["tokens_out"] == 9
    assert running.engine.counts >= 2


async def test_an_engine_that_has_not_come_to_the_request_yet_is_asked_again(start: Start) -> None:
    """It says that nothing was used, and then does the work."""
    running = await start(GENEROUS, book_late=3, hang_after=-1)
    await leave(running, "/v1/embeddings", {"input": "hi"})
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_out"]) == (PROMPT_TOKENS, 0)
    assert await charged(running) == PROMPT_TOKENS
    assert running.engine.counts == 4


async def test_that_nothing_was_used_is_believed_in_the_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_gguf.gateway.relay.engine_usage._PAUSES", (0.01, 0.02, 0.03))
    running = await start(GENEROUS, book_late=3, hang_after=-1)
    await leave(running, "/v1/embeddings", {"input": "hi"})
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_out"]) == (0, 0)
    assert await charged(running) == 0
    assert running.engine.counts == 3


async def test_an_engine_that_never_lets_go_is_not_asked_for_ever(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_gguf.gateway.relay.engine_usage._PAUSES", (0.01,))
    monkeypatch.setattr("llama_gguf.gateway.relay.engine_usage._MORE_PAUSES", (0.02,))
    running = await start(GENEROUS)
    await leave(running, "/v1/chat/completions", chat(hang_after=-1, unseen=9, clings=1))
    line = (await running.lines(1))[0]
    assert line["tokens_in"] not in (0, PROMPT_TOKENS)
    assert await charged(running) == line["tokens_in"] + line["tokens_out"]
    assert running.engine.counts == 2


async def test_an_engine_that_hangs_is_not_waited_for_long(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any) -> tuple[int, bytes]:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr("llama_gguf.gateway.relay.engine_usage.fetch", hang)
    monkeypatch.setattr("llama_gguf.gateway.relay.engine_usage._GIVE_UP_SECONDS", 0.2)
    running = await start(GENEROUS)
    for _ in range(3):
        await leave(running, "/v1/chat/completions", chat(stream=True, hang_after=2), after=b"\n\n")
    lines = await running.lines(3)
    assert [line["outcome"] for line in lines] == ["client_gone"] * 3
    assert await charged(running) == sum(line["tokens_in"] + line["tokens_out"] for line in lines) > 0


async def test_where_the_engine_is_not_to_be_asked_the_guess_stands(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start(GENEROUS)
    monkeypatch.setattr("llama_gguf.gateway.relay.engine_usage.MAX_WAITING", 0)
    body = chat(stream=True, hang_after=1)
    await leave(running, "/v1/chat/completions", body, after=b"\n\n")
    line = (await running.lines(1))[0]
    assert line["tokens_in"] not in (0, PROMPT_TOKENS)
    assert await charged(running) == line["tokens_in"] + line["tokens_out"]
    assert running.engine.counts == 0


@pytest.mark.parametrize("status", [400, 200])
async def test_where_the_engine_cannot_count_the_guess_stands(
    start: Start, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    running = await start(GENEROUS)

    async def cannot(*_: Any) -> tuple[int, bytes]:
        return status, b"{}"

    monkeypatch.setattr("llama_gguf.gateway.relay.engine_usage.fetch", cannot)
    await leave(running, "/v1/chat/completions", chat(stream=True, hang_after=1), after=b"\n\n")
    line = (await running.lines(1))[0]
    assert line["tokens_in"] not in (0, PROMPT_TOKENS)
    assert await charged(running) == line["tokens_in"] + line["tokens_out"]
