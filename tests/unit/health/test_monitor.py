from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.health.monitor import Monitor
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, locate, parse


@pytest.fixture
def run() -> Iterator[RunDir]:
    folder = Path(tempfile.mkdtemp(prefix="lg"))
    yield RunDir(root=folder)
    shutil.rmtree(folder)


class Parts:
    """An engine that answers with `code`, and a gateway that accepts."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.code = 200
        self.gateway_port = 0

    async def __aenter__(self) -> Parts:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(f"HTTP/1.1 {self.code} X\r\n\r\n".encode())
            writer.close()

        async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        self.engine = await asyncio.start_unix_server(answer, str(self.run.engine_socket))
        self.gateway = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.gateway_port = self.gateway.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.engine.close()
        self.gateway.close()

    def snapshot(self, platform: str = "plain") -> Snapshot:
        settings = parse(
            {
                "model": {"path": "/m"},
                "gateway": {"host": "127.0.0.1", "port": self.gateway_port},
                "health": {"platform": platform, "check_interval_seconds": 0.01, "check_timeout_seconds": 1.0},
            }
        )
        return Snapshot(settings, replace(locate(settings, {}), run=self.run))


async def test_looks_until_ready_and_remembers(run: RunDir) -> None:
    lines: list[str] = []
    async with Parts(run) as parts:
        parts.code = 503
        monitor = Monitor(parts.snapshot("vast"), print_line=lines.append)
        await monitor.check()
        assert monitor.current().state == "starting"
        assert not run.ready.exists()
        parts.code = 200
        await monitor.check()
        assert monitor.current().state == "ready"
        assert run.ready.exists()
        assert lines == ["llama-gguf-on-load: model ready"]

        reborn = Monitor(parts.snapshot(), print_line=lines.append)
        assert reborn.current().state == "unready"  # not `starting`: it has been ready before
        await reborn.check()
        assert reborn.current().state == "ready"


async def test_a_stop_and_a_failure_are_seen_without_a_new_look(run: RunDir) -> None:
    lines: list[str] = []
    async with Parts(run) as parts:
        monitor = Monitor(parts.snapshot("vast"), print_line=lines.append)
        await monitor.check()
        assert monitor.current().state == "ready"
        run.draining.touch()
        assert monitor.current().state == "draining"
        failure = Failure("engine", 1, None, "engine died", "/m is no model", "", (), 0.0)
        failures.write(failure, run.failure)
        assert monitor.current().state == "failed"
        assert lines == ["llama-gguf-on-load: model ready", "llama-gguf-on-error: engine died: /m is no model"]


async def test_other_platforms_get_no_lines(run: RunDir) -> None:
    lines: list[str] = []
    async with Parts(run) as parts:
        monitor = Monitor(parts.snapshot("runpod"), print_line=lines.append)
        task = asyncio.create_task(monitor.run())
        while monitor.current().state != "ready":  # noqa: ASYNC110 - what is waited for is the polling itself
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert lines == []
