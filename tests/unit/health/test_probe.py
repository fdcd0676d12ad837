"""The probes against real sockets with all manners."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llama_gguf.health.probe import accepts_connections, probe_engine, read_failure
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.failure import Failure
from llama_gguf.settings import RunDir
from llama_gguf.states import Phase


@pytest.fixture
def socket() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lg"))
    yield folder / "engine.sock"
    shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def engine(socket: Path, answer: bytes, *, delay: float = 0.0) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(delay)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(socket))
    try:
        yield
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", Phase.SERVING),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Phase.LOADING),
        (b"HTTP/1.1 500 Oops\r\n\r\n", Phase.BROKEN),
        (b"HTTP/1.1", Phase.BROKEN),
        (b"", Phase.BROKEN),
        (b"x" * 100_000, None),
    ],
)
async def test_probe_engine(socket: Path, answer: bytes, expected: Phase | None) -> None:
    async with engine(socket, answer):
        assert await probe_engine(socket, 2.0) is expected


async def test_a_hung_engine_is_silent_in_time(socket: Path) -> None:
    async with engine(socket, b"HTTP/1.1 200 OK\r\n\r\n", delay=0.5):
        assert await probe_engine(socket, 0.1) is Phase.SILENT
        await asyncio.sleep(0.5)


async def test_no_socket_and_a_stale_socket_are_absent(socket: Path) -> None:
    assert await probe_engine(socket, 1.0) is None
    async with engine(socket, b""):
        pass
    assert socket.exists()  # noqa: ASYNC240 - one look
    assert await probe_engine(socket, 1.0) is None


async def test_accepts_connections() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""  # sends nothing
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await accepts_connections("127.0.0.1", port, 1.0)
    assert await accepts_connections("0.0.0.0", port, 1.0)
    server.close()
    await server.wait_closed()
    assert not await accepts_connections("127.0.0.1", port, 1.0)


def test_read_failure(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    assert read_failure(run) == (None, "")
    run.failure.write_text("{")
    assert read_failure(run) == ("a program could not stay up", "")
    failures.write(Failure("engine", None, "SIGKILL", "engine died", "no memory", "", (), 0.0), run.failure)
    assert read_failure(run) == ("engine died", "no memory")
