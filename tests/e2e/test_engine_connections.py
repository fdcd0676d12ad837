"""The gateway's connections to the real engine, which closes one after every stream."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from support.gateway_box import ADMIN_KEY, KEY, Box, busy_slots, make_box, stopping, wait_until
from support.http_client import Answer, ask, request_bytes
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

CLIENTS = 8
STREAMS = 160


async def engine_health(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await ask(box.port, "GET", "/health")).body)["engine"]
    return found


async def complete(box: Box, *, stream: bool) -> Answer:
    body = {"model": "tiny", "prompt": "a", "max_tokens": 3, "stream": stream}
    return await ask(box.port, "POST", "/v1/completions", key=KEY, body=body)


async def until_ready(box: Box) -> None:
    """Wait for the gateway's first look at the engine; until then it says `loading`."""
    async with asyncio.timeout(30):
        while (await engine_health(box))["status"] != "ready":  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)


async def until_restarts(box: Box, count: int) -> None:
    async with asyncio.timeout(30):
        while (await engine_health(box))["restarts"] != count:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)


async def load(box: Box) -> tuple[list[int], set[str]]:
    """Send many requests from some clients at once; return their statuses, and the engine's states meanwhile."""
    states: set[str] = set()

    async def watch() -> None:
        while True:
            states.add((await engine_health(box))["status"])

    async def client(number: int) -> list[int]:
        own = range(STREAMS // CLIENTS)
        return [(await complete(box, stream=(number + turn) % 8 != 0)).status for turn in own]

    watching = asyncio.create_task(watch())
    statuses = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    watching.cancel()
    return [status for one in statuses for status in one], states


async def test_a_healthy_engine_looks_healthy_and_a_killed_one_restarted(tmp_path: Path, engine_binary: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    box = make_box(tmp_path / "box", {"engine": {"slots": 2}})
    with stopping(box.start_engine(engine_binary, model, "--parallel", "2")), stopping(box.start_gateway()):
        await until_ready(box)
        statuses, states = await load(box)
        assert statuses == [200] * STREAMS
        assert states == {"ready"}
        assert (await engine_health(box))["restarts"] == 0


async def test_a_killed_engine_is_one_restart(tmp_path: Path, engine_binary: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    box = make_box(tmp_path / "box", {"engine": {"slots": 2}})
    engine = box.start_engine(engine_binary, model, "--parallel", "2")
    with stopping(engine, box.start_gateway()):
        assert (await complete(box, stream=True)).status == 200
        engine.kill()
        engine.wait()
        with stopping(box.start_engine(engine_binary, model, "--parallel", "2")):
            assert (await complete(box, stream=False)).status == 200
            await until_restarts(box, 1)
            assert (await complete(box, stream=True)).status == 200
            assert (await engine_health(box))["restarts"] == 1


async def test_an_engine_without_a_free_slot_is_not_one_that_loads(tmp_path: Path, engine_binary: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", context=32_768)
    box = make_box(tmp_path / "box", {"engine": {"slots": 1, "context_per_slot": 32_768}})
    with stopping(box.start_engine(engine_binary, model, "--parallel", "1")), stopping(box.start_gateway()):
        body = {"model": "tiny", "prompt": "a", "max_tokens": 30_000, "ignore_eos": True, "stream": True}
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
        writer.write(request_bytes("POST", "/v1/completions", key=KEY, body=body))
        await reader.readuntil(b"data: ")
        answer = await ask(box.port, "GET", "/slots?fail_on_no_slot=1", key=ADMIN_KEY)
        assert (answer.status, answer.error["message"]) == (503, "no slot available")
        writer.transport.abort()
    assert "engine is loading" not in box.log


async def leave(box: Box, number: int) -> None:
    """Send a request and disconnect after a while: in the queue, on the way to the engine, or while it generates."""
    body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "ignore_eos": True, "stream": number % 2 == 0}
    _, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(request_bytes("POST", "/v1/completions", key=KEY, body=body))
    await asyncio.sleep(number % 7 / 200)
    writer.transport.abort()


def engine_connections(box: Box) -> int:
    """Return how many connections to the engine are open, from either side."""
    return Path("/proc/net/unix").read_text().count(f"{box.socket}\n")


async def test_a_storm_of_clients_that_leave_costs_neither_connections_nor_slots(
    tmp_path: Path, engine_binary: Path
) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    box = make_box(tmp_path / "box", {"engine": {"slots": 2}})
    with stopping(box.start_engine(engine_binary, model, "--parallel", "2")), stopping(box.start_gateway()):
        for first in range(0, 500, 50):
            await asyncio.gather(*(leave(box, number) for number in range(first, first + 50)))
        await asyncio.to_thread(wait_until, lambda: busy_slots(box.socket) == 0, 5)
        # What remains are the engine's listening socket and the connections of the gateway's regular checks.
        await asyncio.to_thread(wait_until, lambda: 1 <= engine_connections(box) <= 5, 20)
        assert (await engine_health(box))["restarts"] == 0
        state = json.loads((await ask(box.port, "GET", "/health")).body)
        assert (state["queue"]["active"], state["queue"]["waiting"]) == (0, 0)
        assert (await complete(box, stream=True)).status == 200
