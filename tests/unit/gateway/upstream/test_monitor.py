"""Whether the engine can take requests, and what that means for those that wait."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.gateway.upstream.client import EngineClient
from llama_gguf.gateway.upstream.monitor import EngineMonitor
from llama_gguf.states import EngineState, ServiceState
from support.fake_engine import FakeEngine

_ENGINE = """
import os, socket, sys
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
print("up", flush=True)
while True:
    peer = listener.accept()[0]
    peer.recv(4096)
    peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    peer.close()
"""


class Watched:
    """An EngineMonitor with the history of its states."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "e.sock"
        self.file = folder / "engine.json"
        self.client = EngineClient(self.socket, WriteBatch(), connect_timeout=1.0)
        self.history: list[EngineState] = []
        self.engine = EngineMonitor(
            self.client,
            self.file,
            failure_files=[folder / "failure.json"],
            variant_file=folder / "engine-variant.json",
        )
        self.engine.watch(self.history.append)

    async def until(self, state: EngineState) -> ServiceState:
        async with asyncio.timeout(5):
            while self.engine.state is not state or not self.history:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.005)
        return self.engine.service_state

    def tell(self, phase: str, *, pid: int | None = None, since: float | None = None) -> None:
        state = {"phase": phase, "pid": pid or os.getpid(), "since": since or time.time(), "detail": ""}
        self.file.write_text(json.dumps(state))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_ready_loading_down_and_back(watched: Watched) -> None:
    engine = FakeEngine(watched.socket, loading_seconds=0.4)
    await engine.start()
    await watched.engine.start()
    assert await watched.until(EngineState.LOADING) is ServiceState.STARTING
    assert await watched.until(EngineState.READY) is ServiceState.READY
    await engine.stop()
    watched.engine.connection_refused()
    assert await watched.until(EngineState.DOWN) is ServiceState.UNREADY
    await engine.start()
    await watched.until(EngineState.READY)
    assert watched.history == ["loading", "ready", "loading", "down", "ready"]
    assert watched.engine.restarts == 0, "it was the same process all the time"
    await watched.engine.stop()
    await engine.stop()
    watched.client.close()


async def test_restarts_are_counted_by_process(watched: Watched) -> None:
    told: list[int] = []
    watched.engine._on_restart = lambda: told.append(watched.engine.restarts)
    await watched.engine.start()
    for lives in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _ENGINE, str(watched.socket), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()
        watched.engine.check_now()
        await watched.until(EngineState.READY)
        for _ in range(3):
            watched.engine.check_now()  # by itself no restart
            await asyncio.sleep(0.05)
        assert watched.engine.restarts == lives
        process.kill()
        await process.wait()
        watched.engine.connection_refused()
        await watched.until(EngineState.DOWN)
    assert told == [1, 2]
    await watched.engine.stop()
    watched.client.close()


@pytest.mark.parametrize("phase", ["resolving", "downloading", "verifying", "starting"])
async def test_no_socket_yet_is_loading_while_the_program_works_on_it(watched: Watched, phase: str) -> None:
    watched.tell(phase)
    await watched.engine.start()
    await watched.until(EngineState.LOADING)
    error = watched.engine.unavailable_error()
    assert (error.status, error.code) == (503, "model_loading")
    await watched.engine.stop()


def test_a_program_that_is_gone_or_says_nonsense_is_down(watched: Watched) -> None:
    watched.tell("downloading", pid=dead_pid())
    assert watched.engine._without_socket() == "down"
    for text in ("", "{", "[]", "{}", '{"pid": "x", "phase": "starting", "since": 0}'):
        watched.file.write_text(text)
        assert watched.engine._without_socket() == "down"
    watched.engine._set(EngineState.DOWN)
    error = watched.engine.unavailable_error()
    assert (error.status, error.code) == (502, "engine_unreachable")


async def test_an_appliance_that_gave_up_is_failed_at_once_and_until_it_is_started_again(watched: Watched) -> None:
    watched.tell("downloading")
    await watched.engine.start()
    await watched.until(EngineState.LOADING)
    waiting = asyncio.create_task(watched.engine.wait_ready(time.monotonic() + 60))
    await asyncio.sleep(0)
    failure = watched.file.with_name("failure.json")
    await asyncio.to_thread(failure.write_text, '{"program": "engine", "cause": "/models/secret.gguf is no model"}')
    with pytest.raises(GatewayError) as caught:
        await waiting
    assert (caught.value.status, caught.value.code) == (503, "engine_failed")
    assert "secret" not in caught.value.message
    assert caught.value.retry_after is None
    with pytest.raises(GatewayError, match="could not be started"):
        await watched.engine.wait_ready(time.monotonic() + 60)
    assert watched.engine.state == "failed"
    failure.unlink()
    await watched.until(EngineState.LOADING)
    await watched.engine.stop()


async def test_waiting_ends_with_the_engine_or_the_deadline(watched: Watched) -> None:
    engine = FakeEngine(watched.socket, loading_seconds=0.3)
    await engine.start()
    await watched.engine.start()
    with pytest.raises(GatewayError) as caught:
        await watched.engine.wait_ready(time.monotonic() + 0.1)
    assert caught.value.code == "model_loading"
    await watched.engine.wait_ready(time.monotonic() + 5)
    await watched.engine.wait_ready(0.0)
    await watched.engine.stop()
    await engine.stop()
    watched.client.close()


async def test_the_first_look_is_waited_for_even_without_patience(watched: Watched) -> None:
    engine = FakeEngine(watched.socket)
    await engine.start()
    await watched.engine.start()
    await watched.engine.wait_ready(0.0)
    await watched.engine.stop()
    await engine.stop()
    watched.client.close()


async def test_an_engine_too_busy_to_answer_is_not_taken_for_gone(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_gguf.gateway.upstream.monitor._CHECK_TIMEOUT_SECONDS", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, watched.socket)
    assert await watched.engine._check() == "loading"
    watched.engine._set(EngineState.READY)
    assert await watched.engine._check() == "ready"
    server.close()
    watched.client.close()
    await asyncio.sleep(0.01)


async def test_a_check_that_began_before_a_start_tells_nothing_of_what_starts(watched: Watched) -> None:
    """A late word of the process before would have requests sent to one that still loads."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(serve, watched.socket)
    await watched.engine.start()
    try:
        await asked.wait()
        server.close()
        watched.socket.unlink()
        watched.engine.unload()
        watched.engine.expect()
        answer.set()
        await watched.until(EngineState.DOWN)
    finally:
        await watched.engine.stop()
    assert EngineState.READY not in watched.history


async def test_each_process_is_reported_once_and_before_requests_get_to_it(tmp_path: Path) -> None:
    seen: list[EngineState] = []

    async def note() -> None:
        await asyncio.sleep(0.05)  # a file is read
        seen.append(monitor.state)

    client = EngineClient(tmp_path / "e.sock", WriteBatch(), connect_timeout=1.0)
    files = {"failure_files": [tmp_path / "failure.json"], "variant_file": tmp_path / "v.json"}
    monitor = EngineMonitor(client, tmp_path / "engine.json", on_process=note, **files)  # type: ignore[arg-type]
    async with FakeEngine(tmp_path / "e.sock", loading_seconds=0.3):
        await monitor.start()
        async with asyncio.timeout(5):
            while monitor.state is not EngineState.READY:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.005)
        monitor.check_now()
        await asyncio.sleep(0.2)
        await monitor.stop()
    assert seen == [EngineState.LOADING]
