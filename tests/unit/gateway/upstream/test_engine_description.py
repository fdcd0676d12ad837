"""The list of models: from the configuration at once, with the engine's data as soon as it is known."""

from __future__ import annotations

import asyncio

import pytest

from llama_gguf.states import EngineState
from support.running_gateway import Running, Start

NAMED = {
    "id": "tiny",
    "object": "model",
    "created": 0,
    "owned_by": "llama.cpp",
    "task": "generate",
    "context": 2048,
    "modalities": ["text", "image"],
}
META = {"n_ctx_train": 2048, "n_params": 9}


async def entry(running: Running, path: str = "/v1/models") -> dict[str, object]:
    """Return the only model of the list, or the model of its own path, without its state."""
    async with asyncio.timeout(20):  # far less than a request may wait for the engine
        answer = await running.ask("GET", path)
    assert answer.status == 200
    found: dict[str, object] = answer.json()
    if path == "/v1/models":
        assert found["object"] == "list"
        [found] = answer.json()["data"]
    assert found.pop("state") == running.gateway.backends.first.residency
    return found


def asked(running: Running) -> int:
    return [seen.target for seen in running.engine.seen].count("/v1/models")


async def test_models_are_listed_while_the_engine_loads(start: Start) -> None:
    running = await start({"gateway": {"wait_for_engine_seconds": 3600.0}}, loading_seconds=3600)
    assert await entry(running) == NAMED
    assert await entry(running, "/v1/models/tiny") == NAMED
    missing = await running.ask("GET", "/v1/models/other")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")
    assert asked(running) == 0
    running.engine.ready_at = 0.0
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    assert (await entry(running))["meta"] == META
    assert (await entry(running, "/v1/models/tiny"))["meta"] == META


async def test_each_process_of_the_engine_is_asked_once(running: Running) -> None:
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    for _ in range(5):
        assert (await entry(running))["meta"] == META
    assert asked(running) == 1
    running.gateway.backends.first.client.engine_pid = 1  # as if another process had taken its place
    for _ in range(5):
        assert (await entry(running))["meta"] == META
    assert asked(running) == 2


async def test_while_the_engine_is_away_the_list_stays(running: Running) -> None:
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    known = await entry(running)
    await running.engine.stop()
    await running.until(lambda: running.gateway.backends.first.engine.state is not EngineState.READY)
    assert await entry(running) == known


@pytest.mark.parametrize("state", ["dying", "hanging"])
async def test_an_engine_that_does_not_say_is_no_error(
    running: Running, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    monkeypatch.setattr("llama_gguf.gateway.upstream.engine_description._TIMEOUT_SECONDS", 0.1)
    running.engine.default = {"drop_first": 99} if state == "dying" else {"slow_models": True}
    assert await entry(running) == NAMED
    running.engine.default = {}
    assert (await entry(running))["meta"] == META


async def test_an_engine_that_failed_for_good_has_no_models(start: Start) -> None:
    running = await start()
    await running.engine.stop()
    failure = running.box.shot.locations.run.failure
    await asyncio.to_thread(failure.write_text, "{}")
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.FAILED)
    answer = await running.ask("GET", "/v1/models")
    assert (answer.status, answer.error["code"]) == (503, "engine_failed")
