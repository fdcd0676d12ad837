"""What a request is charged, and that charge, usage, metrics and log agree whichever way it ends."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from support.charging import GENEROUS, charged, leave
from support.fake_engine import CACHED_TOKENS, PROMPT_TOKENS
from support.gateway_box import KEY, key_record
from support.http_client import request_bytes
from support.running_gateway import Running, Start, body_of, chat

KEYS = ["sk-key-" + letter * 30 for letter in "abc"]


@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_is_charged_what_the_engine_counted(start: Start, streams: bool) -> None:
    running = await start(GENEROUS)
    await running.ask("POST", "/v1/chat/completions", body=chat(stream=streams, tokens=7))
    await running.lines(1)
    assert await charged(running) == PROMPT_TOKENS + 7
    assert running.gateway.usage.month_tokens("tester") == PROMPT_TOKENS + 7


async def test_of_several_answers_the_sum_is_charged(start: Start) -> None:
    """The prompt was read once."""
    running = await start(GENEROUS)
    answer = await running.ask("POST", "/v1/chat/completions", body={**chat(tokens=7), "n": 2})
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_out"]) == (PROMPT_TOKENS, 2 * 7)
    assert await charged(running) == answer.json()["usage"]["total_tokens"]
    assert running.engine.counts == 0


@pytest.mark.parametrize(
    ("fake", "tokens"),
    [({"status": 400}, 0), ({"status": 500}, 0), ({"die_after": -1}, 0), ({"garbage": "x\r\n\r\n"}, 0)],
)
async def test_what_the_engine_did_not_do_is_not_charged(start: Start, fake: dict[str, Any], tokens: int) -> None:
    running = await start(GENEROUS)
    await running.ask("POST", "/v1/chat/completions", body=chat(**fake))
    await running.lines(1)
    assert await charged(running) == tokens


async def test_a_stream_that_breaks_is_charged_what_was_seen(start: Start) -> None:
    running = await start(GENEROUS)
    await running.stream(tokens=10, die_after=4)
    line = (await running.lines(1))[0]
    assert line["tokens_out"] == 4
    assert await charged(running) == line["tokens_in"] + 4


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_stream_that_was_left_is_charged_what_the_engine_did(start: Start, path: str) -> None:
    running = await start(GENEROUS)
    after = b"xxxx" if "mess" in path else b"\n\n"
    await leave(running, path, body_of(path, stream=True, tokens=50, hang_after=2), after=after)
    line = (await running.lines(1))[0]
    assert line["outcome"] == "client_gone"
    assert (line["tokens_in"], line["tokens_cached"], line["tokens_out"]) == (PROMPT_TOKENS, CACHED_TOKENS, 2)
    assert await charged(running) == PROMPT_TOKENS + 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/infill", "/v1/embeddings", "/rerank"])
async def test_a_plain_answer_that_was_left_is_charged_what_the_engine_did(start: Start, path: str) -> None:
    running = await start(GENEROUS)
    running.engine.default |= {"hang_after": -1, "unseen": 5}
    await leave(running, path, body_of(path))
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_out"]) == (PROMPT_TOKENS, 5)
    assert await charged(running) == PROMPT_TOKENS + 5


async def test_an_answer_that_took_too_long_is_charged(start: Start) -> None:
    running = await start({**GENEROUS, "gateway": {"timeouts": {"total_seconds": 0.3}}})
    assert (await running.chat(hang_after=-1, unseen=5)).status == 504
    line = (await running.lines(1))[0]
    assert (line["outcome"], line["tokens_in"], line["tokens_out"]) == ("timeout", PROMPT_TOKENS, 5)
    assert await charged(running) == PROMPT_TOKENS + 5


@pytest.mark.slow
async def test_of_an_engine_that_cannot_tell_a_plain_answer_that_was_left_is_charged_for_its_time(start: Start) -> None:
    """Nothing of it was seen. An answer makes 400 tokens a second here."""
    running = await start(GENEROUS, book=False)
    await leave(running, "/v1/chat/completions", chat(hang_after=-1), seconds=0.2)
    assert (await running.lines(1))[0]["tokens_out"] == 0  # nobody knows yet how fast it is
    assert (await running.chat()).status == 200
    await running.lines(2)
    await leave(running, "/v1/chat/completions", {**chat(hang_after=-1), "max_tokens": 1000}, seconds=0.3)
    assert 100 <= (await running.lines(3))[2]["tokens_out"] <= 1000  # 120, and more on a machine that is busy
    await leave(running, "/v1/chat/completions", chat(hang_after=-1), seconds=0.3)
    lines = await running.lines(4)
    assert lines[3]["tokens_out"] <= 16  # no more than was allowed
    assert await charged(running) == sum(line["tokens_in"] + line["tokens_out"] for line in lines)


async def test_embeddings_without_counts_are_counted(start: Start) -> None:
    running = await start(GENEROUS, timings=False, tokens=0)
    assert (await running.ask("POST", "/embedding", body={"content": "hello"})).status == 200
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_out"]) == (PROMPT_TOKENS, 0)
    assert await charged(running) == PROMPT_TOKENS


async def test_answers_with_counts_each_are_added(start: Start) -> None:
    """llama.cpp's own route answers several prompts with a list; each of its answers tells its own."""
    running = await start(GENEROUS, several=True)
    assert (await running.ask("POST", "/completion", body={"prompt": ["a", "b"], "n_predict": 3})).status == 200
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_out"]) == (2 * PROMPT_TOKENS, 2 * 3)
    assert (await running.ask("POST", "/completion", body={"prompt": "a", "n_cmpl": 2})).status == 200
    line = (await running.lines(2))[1]
    assert (line["tokens_in"], line["tokens_out"]) == (PROMPT_TOKENS, 2 * 3)
    assert running.engine.counts == 0


async def test_counting_tokens_and_listing_models_costs_no_tokens(start: Start) -> None:
    running = await start(GENEROUS)
    assert (await running.ask("POST", "/tokenize", body={"content": "hi"})).status == 200
    assert (await running.ask("GET", "/v1/models")).status == 200
    await running.lines(2)
    assert await charged(running) == 0


async def abort_at_random(running: Running, number: int, rng: random.Random) -> None:
    """Make one request and leave it at a random moment, or not at all."""
    streams = rng.random() < 0.6
    fake: dict[str, Any] = {"tokens": rng.randrange(1, 30), "pause": rng.choice([0, 0.002]), "delay": rng.random() / 20}
    if rng.random() < 0.2:
        fake |= rng.choice([{"die_after": rng.randrange(-1, 3)}, {"status": 400}, {"timings": False}])
    path = rng.choice(["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    body = {**chat(stream=streams, **fake), "prompt": "hi"}
    writer.write(request_bytes("POST", path, body=body, key=rng.choice(KEYS), headers={"X-Request-Id": str(number)}))
    patience = rng.choice([0.0, 0.005, 0.02, 0.05, 5.0])
    try:
        async with asyncio.timeout(patience):
            while data := await reader.read(65536):
                if data.endswith((b"0\r\n\r\n", b"}")):
                    break
    except (TimeoutError, ConnectionError):
        pass
    writer.close()


@pytest.mark.parametrize("seed", range(4))
async def test_under_random_aborts_charged_equals_reported(start: Start, seed: int) -> None:
    running = await start(GENEROUS)
    records = [key_record(f"key{number}", key) for number, key in enumerate(KEYS)]
    await asyncio.to_thread(running.box.write_keys, [*records, key_record("tester", KEY)])
    await running.gateway.keys.reload_now()
    rng = random.Random(seed)
    await asyncio.gather(*(abort_at_random(running, number, rng) for number in range(60)))
    await running.until(lambda: running.gateway.pipeline.in_flight == 0)
    lines = await running.lines(60)
    assert len({line["request_id"] for line in lines}) == len(lines) == 60
    assert {line["outcome"] for line in lines} >= {"ok", "client_gone"}
    for number in range(3):
        mine = [line for line in lines if line["key"] == f"key{number}"]
        reported = sum((line["tokens_in"] or 0) + (line["tokens_out"] or 0) for line in mine)
        assert await charged(running, f"key{number}") == reported
        assert running.gateway.usage.month_tokens(f"key{number}") == reported
    metrics = (await running.ask("GET", "/metrics", key=None, headers={"Accept": "application/json"})).json()
    samples = (
        metrics["llama_gguf_prompt_tokens_total"]["samples"] + metrics["llama_gguf_completion_tokens_total"]["samples"]
    )
    assert sum(sample["value"] for sample in samples) == sum(
        (line["tokens_in"] or 0) + (line["tokens_out"] or 0) for line in lines
    )
    assert running.gateway.backends.first.admission.active == running.gateway.backends.first.admission.waiting == 0
    store: Any = running.gateway.limiter._store
    assert all(counts.in_flight == 0 for counts in store._counts.values())


async def test_a_request_in_parts_is_charged_the_sum_of_them(start: Start) -> None:
    """More prompts than slots are sent a few at a time, and the client gets one response."""
    running = await start(GENEROUS)
    size = running.gateway.backends.first.admission.capacity
    prompts = [f"prompt {number}" for number in range(2 * size + 1)]
    answer = await running.ask("POST", "/v1/completions", body={"model": "tiny", "prompt": prompts, "max_tokens": 9})
    assert answer.status == 200
    sent = [json.loads(seen.body)["prompt"] for seen in running.engine.asked]
    assert sent == [prompts[:size], prompts[size:-1], prompts[-1:]]
    assert len({seen.headers["x-usage-id"] for seen in running.engine.asked}) == 1, "the engine counts them as one"
    assert answer.json()["usage"]["prompt_tokens"] == 3 * PROMPT_TOKENS
    line = (await running.lines(1))[0]
    assert (line["tokens_in"], line["tokens_out"]) == (3 * PROMPT_TOKENS, 3 * 3)
    assert await charged(running) == answer.json()["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("knobs", "status", "code"), [({"status": 400}, 400, "bad_request"), ({"die_after": -1}, 502, "engine_closed")]
)
async def test_a_part_that_fails_fails_the_request_and_frees_all(
    start: Start, knobs: dict[str, Any], status: int, code: str
) -> None:
    running = await start(GENEROUS)
    running.engine.default |= knobs
    body = {"model": "tiny", "prompt": ["a"] * 5, "max_tokens": 9}
    answer = await running.ask("POST", "/v1/completions", body=body)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert running.gateway.backends.first.admission.active == 0
    running.engine.default.clear()
    assert (await running.ask("POST", "/v1/completions", body=body)).status == 200
