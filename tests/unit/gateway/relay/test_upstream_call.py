"""A request's way to the engine: retries, timeouts before the first byte, an engine that is not there."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from typing import cast

import pytest

from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.handler import ResponseSink
from llama_gguf.gateway.http1.inline_task import InlineTask
from llama_gguf.gateway.http1.message import Request, RequestHead
from llama_gguf.gateway.upstream.client import EngineConnection
from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.states import EngineState
from support.gateway_box import ENGINE_KEY
from support.http_client import read_answer, request_bytes
from support.running_gateway import Running, Start, chat

OWN = {"X-Cache-Scope": "boss", "X-Conversation-Id": "me", "X-Usage-Id": "mine", "Cookie": "c=1"}


async def test_the_engine_sees_its_own_key_and_none_of_the_clients_headers(running: Running) -> None:
    await running.ask("POST", "/v1/chat/completions", body=chat(), headers=OWN)
    seen = running.engine.asked[0]
    assert seen.headers["authorization"].startswith("Bearer engine-key")
    assert set(seen.headers) == {
        "host",
        "authorization",
        "content-type",
        "content-length",
        "x-usage-id",
        "x-cache-scope",
    }
    assert seen.headers["x-usage-id"] != "mine"
    assert seen.headers["x-cache-scope"] == "tester"
    assert seen.headers["content-type"] == "application/json"
    assert json.loads(seen.body) == chat()


async def test_keepalive_connections_are_reused_on_both_sides(running: Running) -> None:
    request = request_bytes("POST", "/v1/chat/completions", body=chat())
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for _ in range(5):
        writer.write(request)
        assert (await read_answer(reader)).status == 200
    writer.close()
    assert running.engine.connections <= 3  # one or two for health checks


async def test_a_connection_to_the_engine_is_given_up_before_the_engine_does(running: Running) -> None:
    for _ in range(105):
        assert (await running.chat()).status == 200
    assert len(running.engine.asked) == 105
    assert 50 < running.engine.most_per_connection < 100


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
async def test_what_an_engine_died_of_is_never_sent_again(running: Running, streams: bool, pooled: bool) -> None:
    if pooled:
        assert (await running.chat()).status == 200
    before = len(running.engine.asked)
    answer = await running.ask("POST", "/v1/chat/completions", body=chat(stream=streams, drop_first=1))
    assert answer.status == 502
    assert answer.error["code"] == "engine_closed"
    assert len(running.engine.asked) == before + 1


async def test_a_connection_that_the_engine_has_closed_is_neither_a_lost_engine_nor_a_try(running: Running) -> None:
    states: list[EngineState] = []
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    running.gateway.backends.first.engine._on_change = states.append
    for number in range(20):
        answer = await running.ask("POST", "/v1/chat/completions", body=chat(stream=number % 3 == 0))
        assert answer.status == 200
        running.engine.close_idle()
    assert len(running.engine.asked) == 20
    assert states == []
    assert running.gateway.health()["engine"] == {"status": "ready", "restarts": 0, "cpu_variant": None}


async def test_a_request_that_ends_its_connection_is_not_taken_for_a_dead_engine(running: Running) -> None:
    states: list[EngineState] = []
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    running.gateway.backends.first.engine._on_change = states.append
    assert (await running.ask("POST", "/v1/chat/completions", body=chat(die_after=-1))).status == 502
    looks = len(running.engine.seen)
    await running.until(lambda: len(running.engine.seen) > looks)  # it was looked at, and found to be well
    assert (await running.chat()).status == 200
    assert states == []


async def test_a_503_of_an_engine_that_is_ready_is_its_answer(running: Running) -> None:
    """It says so where no slot is free, too: `GET /slots?fail_on_no_slot=1`."""
    states: list[EngineState] = []
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    running.gateway.backends.first.engine._on_change = states.append
    answer = await running.chat(status=503, error="unavailable_error", message="no slot available")
    assert (answer.status, answer.error["code"]) == (503, "engine_error")
    assert answer.error["message"] == "no slot available"
    assert len(running.engine.asked) == 1
    assert states == []


@pytest.mark.parametrize(
    ("setting", "streams"), [("first_byte_seconds", True), ("total_seconds", True), ("total_seconds", False)]
)
async def test_an_engine_that_is_too_slow_is_a_504_that_names_the_setting(
    start: Start, setting: str, streams: bool
) -> None:
    running = await start({"gateway": {"timeouts": {setting: 0.3}}})
    answer = await running.ask("POST", "/v1/chat/completions", body=chat(stream=streams, hang_after=-1))
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    assert answer.error["message"] == f"The engine took longer than gateway.timeouts.{setting} (0.3 s)."
    await running.until(lambda: all(seen.dropped for seen in running.engine.asked))
    assert (await running.lines())[0]["outcome"] == "timeout"


async def test_an_answer_that_is_not_streamed_has_only_the_total(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"first_byte_seconds": 0.1, "idle_seconds": 0.1}}})
    assert (await running.chat(delay=0.6)).status == 200
    slow = await running.ask("POST", "/v1/embeddings", body={"model": "tiny", "input": "a", "fake": {"delay": 0.6}})
    assert slow.status == 200


@pytest.mark.parametrize(("wait", "last"), [(5.0, "data: [DONE]"), (0.4, "model_loading")])
async def test_a_stream_that_waits_for_the_engine_is_kept_open_too(start: Start, wait: float, last: str) -> None:
    changes = {"sse_keepalive_seconds": 0.1, "wait_for_engine_seconds": wait}
    running = await start({"gateway": changes}, loading_seconds=0.8)
    answer = await running.stream(tokens=2)
    assert answer.status == 200
    assert answer.events[0] == ": keep-alive"
    assert last in answer.events[-1]
    assert answer.complete


async def test_an_engine_that_takes_no_connection_in_time_is_504(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start({"gateway": {"timeouts": {"connect_seconds": 0.2}}})
    await running.until(lambda: running.gateway.backends.first.engine.state == "ready")
    running.gateway.backends.first.client.close()

    async def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "as uvloop says where the engine's backlog is full")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", full)
    answer = await running.chat()
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    assert "gateway.timeouts.connect_seconds (0.2 s)" in answer.error["message"]
    assert running.gateway.backends.first.engine.state is EngineState.READY  # it is there, and busy
    assert not running.engine.asked


async def test_an_engine_that_failed_for_good_is_said_so_without_a_wait(start: Start) -> None:
    running = await start({"gateway": {"wait_for_engine_seconds": 60.0}})
    await running.engine.stop()
    run = running.box.shot.locations.run
    await asyncio.to_thread(run.failure.write_text, '{"cause": "/models/secret.gguf is no model"}')
    for path in ("/v1/chat/completions", "/v1/messages"):
        async with asyncio.timeout(10):
            answer = await running.ask("POST", path, body=chat())
        assert (answer.status, answer.error["code"]) == (503, "engine_failed")
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
        assert b"secret" not in answer.body
    health = (await running.ask("GET", "/health", key=None)).json()
    assert (health["status"], health["engine"]["status"]) == ("failed", "failed")
    assert "secret" not in str(health)
    assert [line["outcome"] for line in (await running.lines(2))[:2]] == ["upstream_error", "upstream_error"]


async def test_reading_the_prompt_counts_as_waiting_for_the_first_byte(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"first_byte_seconds": 0.4, "idle_seconds": 0.2}}})
    assert (await running.stream(prefill=0.3)).status == 200
    answer = await running.stream(prefill=5)
    assert (answer.status, answer.error["code"]) == (504, "timeout")


async def test_requests_wait_for_an_engine_that_loads(start: Start) -> None:
    running = await start({"gateway": {"wait_for_engine_seconds": 5.0}}, loading_seconds=0.6)
    answers = await asyncio.gather(running.chat(), running.stream())
    assert [answer.status for answer in answers] == [200, 200]


async def test_an_engine_that_loads_for_long_is_503_with_retry_after(start: Start) -> None:
    running = await start({"gateway": {"wait_for_engine_seconds": 0.2}}, loading_seconds=60)
    answer = await running.chat()
    assert answer.status == 503
    assert answer.error["code"] == "model_loading"
    assert int(answer.headers["retry-after"]) >= 1
    assert (await running.lines())[0]["outcome"] == "rejected"


async def test_an_engine_that_is_not_there_is_502(start: Start) -> None:
    running = await start({"gateway": {"wait_for_engine_seconds": 0.2}})
    await running.engine.stop()
    answer = await running.chat()
    assert answer.status == 502
    assert answer.error["code"] == "engine_unreachable"


async def test_new_requests_wait_for_an_engine_that_restarts_and_the_one_in_it_is_lost(start: Start) -> None:
    running = await start({"gateway": {"wait_for_engine_seconds": 5.0}})
    assert (await running.chat()).status == 200
    lost = asyncio.create_task(running.chat(delay=30))
    await running.until(lambda: len(running.engine.asked) == 2)
    await running.engine.stop()
    assert (await lost).error["code"] == "engine_closed"
    waiting = asyncio.create_task(running.chat())
    await asyncio.sleep(0.3)
    await running.engine.start()
    assert (await waiting).status == 200
    assert len(running.engine.asked) == 3


async def test_an_engine_that_answers_before_it_has_read_the_request_is_not_asked_again_on_that_connection(
    start: Start,
) -> None:
    running = await start(early=413)
    large = {**chat(), "messages": [{"role": "user", "content": "x" * 5_000_000}]}
    for _ in range(3):
        answer = await running.ask("POST", "/v1/chat/completions", body=large)
        assert answer.status == 413
        assert answer.error["message"] == "without having read it"
        assert (await running.chat()).status == 200
    assert len(running.engine.asked) == 3


class Calls:
    """Requests to the engine, each as the gateway runs it, and how they ended."""

    def __init__(self, running: Running) -> None:
        self._caller = running.gateway.backends.first.caller
        head = engine_head("POST", "/v1/chat/completions", ENGINE_KEY)
        self._request = engine_request(head, b"{}", b"application/json")
        self.ended: dict[str, int | None] = {}

    def start(self, name: str) -> InlineTask:
        """Start a request; it is sent at once if a connection is idle."""
        task = InlineTask(self._call(name), lambda: None)
        task.step()
        return task

    async def _call(self, name: str) -> None:
        head = RequestHead("POST", "/v1/chat/completions", {})
        exchange = Exchange(Request(head), cast("ResponseSink", None), name, time.monotonic())
        try:
            self.ended[name] = (await self._caller.call(exchange, self._request)).status
        except asyncio.CancelledError:
            self.ended[name] = None
            raise


async def test_a_client_that_leaves_at_the_very_end_does_not_take_another_ones_connection(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is complete and its connection in use again, but its coroutine has not been resumed yet."""
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    calls, client = Calls(running), running.gateway.backends.first.client
    release = client.release

    def release_and_take(connection: EngineConnection) -> None:
        release(connection)
        monkeypatch.setattr(client, "release", release)
        calls.start("next")
        first.cancel()

    monkeypatch.setattr(client, "release", release_and_take)
    while connection := client.acquire():  # so that it runs as a task
        connection.close()
    first = calls.start("first")
    await running.until(lambda: len(calls.ended) == 2)
    assert calls.ended == {"first": None, "next": 200}


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_client_that_leaves_before_its_request_is_written_never_reaches_the_engine(
    running: Running, pooled: bool
) -> None:
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    calls = Calls(running)
    for number in range(5):
        if pooled:
            assert (await running.chat()).status == 200
        else:
            while connection := running.gateway.backends.first.client.acquire():
                connection.close()
        calls.start(str(number)).cancel()
    await running.until(lambda: len(calls.ended) == 5)
    assert set(calls.ended.values()) == {None}
    before = len(running.engine.asked)
    assert before == (5 if pooled else 0)
    assert (await running.chat()).status == 200
    assert len(running.engine.asked) == before + 1


async def test_a_storm_of_clients_that_leave_costs_neither_connections_nor_places(start: Start) -> None:
    running = await start({"engine": {"slots": 8}})

    async def leave(number: int) -> None:
        knobs = ({"delay": 0.01}, {"prefill": 0.01}, {"pause": 0.002}, {"hang_after": 1}, {"tokens": 1})[number % 5]
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(stream=number % 2 == 0, **knobs)))
        for _ in range(number % 17):
            await asyncio.sleep(0 if number % 3 else 0.002)
        writer.transport.abort()

    for first in range(0, 500, 50):
        await asyncio.gather(*map(leave, range(first, first + 50)))
    gateway, engine = running.gateway, running.engine

    def idle() -> bool:
        gateway.backends.first.client.check(time.monotonic() + 10)  # later, the idle ones are closed
        admission = gateway.backends.first.admission
        return not (gateway.pipeline.in_flight or admission.active or admission.waiting)

    await running.until(lambda: idle() and engine.open_connections == 0, 20)
    assert not gateway.backends.first.client._open
    assert (await running.chat()).status == 200
    assert gateway.health()["engine"] == {"status": "ready", "restarts": 0, "cpu_variant": None}
