"""What a request is charged, and that charge, usage, metrics and log agree whichever way it ends."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from support.fake_engine import CACHED_TOKENS, PROMPT_TOKENS
from support.gateway_box import KEY, key_record
from support.http_client import request_bytes
from support.running_gateway import Running, Start, chat

GENEROUS = {"limits": {"tokens_per_minute": 1_000_000, "max_in_flight": 3, "queue": {"max_size": 0}}}
KEYS = ["sk-key-" + letter * 30 for letter in "abc"]


async def charged(running: Running, key_id: str = "tester") -> int:
    """Return the tokens a key is charged this minute and the last."""
    store: Any = running.gateway.limiter._store
    counts = store.counts_of(key_id, running.gateway.limiter._clock())
    return int(counts.tokens + counts.previous_tokens)


@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_is_charged_what_the_engine_counted(start: Start, streams: bool) -> None:
    running = await start(GENEROUS)
    await running.ask("POST", "/v1/chat/completions", body=chat(stream=streams, tokens=7))
    await running.lines(1)
    assert await charged(running) == PROMPT_TOKENS + 7
    assert running.gateway.usage.month_tokens("tester") == PROMPT_TOKENS + 7


@pytest.mark.parametrize("streams", [False, True])
async def test_without_counts_of_the_engine_the_estimate_stands(start: Start, streams: bool) -> None:
    running = await start(GENEROUS)
    await running.ask("POST", "/v1/chat/completions", body=chat(stream=streams, tokens=7, timings=False))
    line = (await running.lines(1))[0]
    assert await charged(running) == line["tokens_in"] + line["tokens_out"] > 10


async def test_several_answers_in_one_are_charged_several_times(start: Start) -> None:
    running = await start(GENEROUS)
    await running.ask("POST", "/v1/chat/completions", body={**chat(tokens=7), "n": 3})
    await running.lines(1)
    assert await charged(running) == 3 * (PROMPT_TOKENS + 7)


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
    metrics = (await running.ask("GET", "/metrics", key=None)).json()
    samples = (
        metrics["llama_gguf_prompt_tokens_total"]["samples"] + metrics["llama_gguf_completion_tokens_total"]["samples"]
    )
    assert sum(sample["value"] for sample in samples) == sum(
        (line["tokens_in"] or 0) + (line["tokens_out"] or 0) for line in lines
    )
    assert running.gateway.admission.active == running.gateway.admission.waiting == 0
    store: Any = running.gateway.limiter._store
    assert all(counts.in_flight == 0 for counts in store._counts.values())


async def test_metrics_of_an_answer(start: Start) -> None:
    running = await start(GENEROUS)
    await running.stream(tokens=5, pause=0.01)
    await running.stream(die_after=-1)
    await running.lines(2)
    found = (await running.ask("GET", "/metrics", key=None)).json()

    def samples(name: str) -> list[dict[str, Any]]:
        return list(found[name]["samples"])

    by_outcome = {sample["labels"]["outcome"]: sample["value"] for sample in samples("llama_gguf_requests_total")}
    assert by_outcome["ok"] == 1
    assert by_outcome["upstream_error"] == 1
    assert samples("llama_gguf_time_to_first_token_seconds")[0]["count"] == 1
    assert samples("llama_gguf_inter_token_seconds")[0]["count"] == 4
    assert samples("llama_gguf_queue_wait_seconds")[0]["count"] == 2
    assert samples("llama_gguf_cached_prompt_tokens_total")[0]["value"] == CACHED_TOKENS
    assert samples("llama_gguf_requests_in_flight")[0]["value"] == 1  # this one


async def test_settling_with_a_shared_store_survives_the_request(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is slow, and the client has left long before it answers."""
    running = await start(GENEROUS)
    forwarder = running.gateway.forwarder
    monkeypatch.setattr(forwarder, "_settle_apart", True)
    settled: list[int] = []
    settle = running.gateway.limiter.settle

    async def slow(charge: Any, tokens: int) -> None:
        await asyncio.sleep(0.2)
        settled.append(tokens)
        await settle(charge, tokens)
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
    await forwarder.close()
    assert len(settled) == 2
    assert "could not settle" in caplog.text
