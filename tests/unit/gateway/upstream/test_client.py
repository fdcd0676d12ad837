"""Connections to the engine: heads, framing, reuse, strictness."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.gateway.upstream.client import EngineClient, EngineConnection, fetch
from llama_gguf.gateway.upstream.response_parser import EngineFailure, ResponseHead

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"


class Heard:
    """A receiver that writes down what it is told."""

    def __init__(self, *, raw: bool = False) -> None:
        self.raw = raw
        self.head: ResponseHead | None = None
        self.data = b""
        self.failure: EngineFailure | None = None
        self.done = asyncio.Event()

    def on_head(self, head: ResponseHead, first: bytes, *, complete: bool) -> None:
        assert self.head is None
        self.head = head
        self.on_data(first, complete=complete)

    def on_data(self, data: bytes, *, complete: bool) -> None:
        assert not self.done.is_set()
        self.data += data
        if complete:
            self.done.set()

    def check(self, now: float) -> None:
        """Have all the time in the world."""

    def on_failure(self, failure: EngineFailure) -> None:
        assert not self.done.is_set()
        self.failure = failure
        self.done.set()


Serve = Callable[..., Awaitable[EngineClient]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Answer every connection with the given pieces, one set for each request."""
    servers: list[asyncio.Server] = []
    clients: list[EngineClient] = []
    deaf: list[asyncio.Task[None]] = []

    async def start(*answers: bytes | list[bytes], close: bool = False, reads_on: bool = True) -> EngineClient:
        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                for answer in answers:
                    await reader.readuntil(b"\r\n\r\n")
                    for piece in [answer] if isinstance(answer, bytes) else answer:
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0.002)
                if not reads_on:
                    deaf.append(cast("asyncio.Task[None]", asyncio.current_task()))
                    await asyncio.sleep(3600)
                if not close:
                    await reader.read()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        path = tmp_path / f"{len(servers)}.sock"
        servers.append(await asyncio.start_unix_server(on_connection, path))
        clients.append(EngineClient(path, WriteBatch(), connect_timeout=1.0))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for task in deaf:
        task.cancel()
    await asyncio.gather(*deaf, return_exceptions=True)
    for server in servers:
        server.close()
    await asyncio.sleep(0.01)


async def hear(client: EngineClient, *, raw: bool = False) -> tuple[Heard, EngineConnection]:
    connection = client.acquire() or await client.connect()
    heard = Heard(raw=raw)
    connection.send(REQUEST, heard)
    async with asyncio.timeout(5):
        await heard.done.wait()
    return heard, connection


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("raw", [False, True])
async def test_a_plain_answer_in_pieces(serve: Serve, size: int, raw: bool) -> None:
    client = await serve([PLAIN[at : at + size] for at in range(0, len(PLAIN), size)])
    heard, connection = await hear(client, raw=raw)
    assert heard.data == b"hello"
    assert heard.head is not None
    assert (heard.head.status, heard.head.media_type, heard.head.length) == (200, b"text/plain", 5)
    assert client.acquire() is connection


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("raw", [False, True])
async def test_a_chunked_answer_in_pieces(serve: Serve, size: int, raw: bool) -> None:
    answer = CHUNKED + CHUNKS
    client = await serve([answer[at : at + size] for at in range(0, len(answer), size)])
    heard, connection = await hear(client, raw=raw)
    assert heard.data == (CHUNKS if raw else b"abcdefg")
    assert not connection.usable, "the engine closes it at any moment"
    assert client.acquire() is None


async def test_answers_follow_each_other_on_one_connection(serve: Serve) -> None:
    client = await serve(PLAIN, PLAIN, PLAIN, CHUNKED + CHUNKS)
    first, connection = await hear(client)
    for raw in (True, False, True):
        heard, again = await hear(client, raw=raw)
        assert again is connection
        assert heard.failure is None
    assert first.data == b"hello"


@pytest.mark.parametrize("sent", [b"", b"x"], ids=["closed", "unsolicited"])
async def test_an_idle_connection_is_looked_at_before_it_is_used(tmp_path: Path, sent: bytes) -> None:
    """The event loop does not run in between: only the kernel knows."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "e"))
        listener.listen()
        client = EngineClient(tmp_path / "e", WriteBatch(), connect_timeout=1.0)
        connection = await client.connect()
        peer, _ = listener.accept()
        client.release(connection)
        assert client.acquire() is connection
        client.release(connection)
        if sent:
            peer.sendall(sent)
        else:
            peer.close()
        assert client.acquire() is None
        assert client.engine_pid == os.getpid()
        peer.close()
        client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"garbage without an end of line",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbody up to the end",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + PLAIN,
        b"HTTP/1.1 1xx Odd\r\n\r\n" + PLAIN,
        b"HTTP/1.1 1000 Odd\r\n\r\n" + PLAIN,
        b"HTTP/1.1 103 " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        PLAIN + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        PLAIN + b"x",
        CHUNKED + CHUNKS + PLAIN,
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
async def test_what_is_no_single_answer_is_a_failure(serve: Serve, answer: bytes) -> None:
    client = await serve(answer)
    heard, _ = await hear(client)
    assert heard.failure is not None
    assert heard.failure.reason == "protocol"
    assert client.acquire() is None


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("answer", [PLAIN, CHUNKED + CHUNKS])
async def test_interim_responses_are_skipped(serve: Serve, answer: bytes, size: int) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer
    client = await serve([answer[at : at + size] for at in range(0, len(answer), size)])
    heard, _ = await hear(client)
    assert heard.failure is None
    assert heard.head is not None
    assert heard.head.status == 200
    assert heard.data in (b"hello", b"abcdefg")


async def test_a_response_without_a_body_ends_with_its_head(serve: Serve) -> None:
    client = await serve(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")
    heard, connection = await hear(client)
    assert (heard.failure, heard.data) == (None, b"")
    assert client.acquire() is connection


LARGE = b"POST / HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000


@pytest.mark.parametrize("engine", [{"reads_on": True}, {"reads_on": False}, {"close": True}], ids=str)
@pytest.mark.parametrize("answer", [PLAIN, b"SSH-2.0-OpenSSH\r\n\r\n"], ids=["answer", "garbage"])
async def test_a_connection_is_not_used_again_if_the_engine_answered_before_it_had_all(
    serve: Serve, answer: bytes, engine: dict[str, bool]
) -> None:
    """The rest of the request would be taken for the next one."""
    client = await serve(answer, **engine)
    connection = await client.connect()
    heard = Heard()
    connection.send(LARGE, heard)
    async with asyncio.timeout(5):
        await heard.done.wait()
        assert (heard.data == b"hello") == (answer == PLAIN)
        assert client.acquire() is None
        while client._open:  # noqa: ASYNC110 - it must not wait for an engine that reads no more
            await asyncio.sleep(0.005)


async def test_a_request_that_is_over_does_not_abort_the_next_one_on_its_connection(serve: Serve) -> None:
    client = await serve(PLAIN, [PLAIN[:20], b"", b"", PLAIN[20:]])
    first, connection = await hear(client)
    assert client.acquire() is connection
    second = Heard()
    connection.send(REQUEST, second)
    connection.cancel(first)
    async with asyncio.timeout(5):
        await second.done.wait()
    assert (second.failure, second.data) == (None, b"hello")
    connection.send(REQUEST, third := Heard())
    connection.cancel(third)
    assert not connection.usable


async def test_a_connection_that_is_lost_as_soon_as_it_is_made_is_none(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request sent on it would never hear of it."""
    client = await serve(close=True)
    loop = asyncio.get_running_loop()
    connect = loop.create_unix_connection

    async def connect_and_lose(*arguments: Any) -> Any:
        transport, connection = await connect(*arguments)
        while connection.usable:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return transport, connection

    monkeypatch.setattr(loop, "create_unix_connection", connect_and_lose)
    with pytest.raises(EngineFailure) as caught:
        await client.connect()
    assert caught.value.reason == "connect"
    assert not client._open


async def test_an_attempt_to_connect_that_is_cancelled_leaves_no_connection(serve: Serve) -> None:
    client = await serve(PLAIN)
    for turns in range(6):
        connecting = asyncio.ensure_future(client.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        if not connecting.cancelled():
            connecting.result().abort()
    async with asyncio.timeout(5):
        while client._open:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_more_than_was_announced_is_a_failure_also_later(serve: Serve) -> None:
    client = await serve([PLAIN[:-2], b"lo and more"])
    heard, _ = await hear(client)
    assert heard.failure is not None
    client = await serve([CHUNKED + b"1\r\na\r\n", b"0\r\n\r\n" + PLAIN])
    heard, _ = await hear(client, raw=True)
    assert heard.failure is not None
    assert b"hello" not in heard.data


@pytest.mark.parametrize("answer", [b"", PLAIN[:20], PLAIN[:-1], CHUNKED + b"3\r\nab"])
async def test_a_connection_that_breaks_is_a_failure(serve: Serve, answer: bytes) -> None:
    client = await serve(answer, close=True)
    heard, _ = await hear(client)
    assert heard.failure is not None
    assert heard.failure.reason == "closed"


async def test_connection_close_is_honoured(serve: Serve) -> None:
    client = await serve(PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    heard, _ = await hear(client)
    assert heard.data == b"hello"
    assert client.acquire() is None


async def test_bytes_nobody_asked_for_end_a_connection(serve: Serve) -> None:
    client = await serve([PLAIN, b"", b"HTTP/1.1 408 Timeout\r\n\r\n"])
    await hear(client)
    await asyncio.sleep(0.05)
    assert client.acquire() is None


async def test_idle_connections_are_let_go(serve: Serve) -> None:
    client = await serve(PLAIN)
    _, connection = await hear(client)
    client.check(connection.idle_since + 3.9)
    assert connection.usable
    client.check(connection.idle_since + 4.1)
    assert not connection.usable
    assert client.acquire() is None


async def test_a_connection_that_was_idle_too_long_is_not_taken(serve: Serve) -> None:
    client = await serve(PLAIN)
    _, connection = await hear(client)
    connection.idle_since -= 10
    assert client.acquire() is None


async def test_nobody_to_connect_to(tmp_path: Path) -> None:
    with pytest.raises(EngineFailure) as caught:
        await EngineClient(tmp_path / "none.sock", WriteBatch(), connect_timeout=1.0).connect()
    assert caught.value.reason == "connect"


@pytest.mark.parametrize("accepts", [True, False])
def test_an_engine_whose_backlog_is_full_is_waited_for(tmp_path: Path, accepts: bool) -> None:
    """It is not gone. uvloop, which the gateway runs on, reports it; asyncio's own loop takes it for a connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "e"))
        listener.listen(0)

        async def fill_backlog_and_connect() -> int:
            client = EngineClient(tmp_path / "e", WriteBatch(), connect_timeout=60.0 if accepts else 0.2)
            await client.connect()
            second = asyncio.ensure_future(client.connect())
            await asyncio.wait([second], timeout=0.1)
            assert not second.done()
            if accepts:
                listener.accept()[0].close()
            try:
                return (await second).served
            finally:
                client.close()
                await asyncio.sleep(0.01)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if accepts:
                assert runner.run(fill_backlog_and_connect()) == 0
                return
            with pytest.raises(EngineFailure) as caught:
                runner.run(fill_backlog_and_connect())
        assert str(caught.value) == "timeout: gateway.timeouts.connect_seconds (0.2 s)"


async def test_fetch(serve: Serve) -> None:
    assert await fetch(await serve(PLAIN), REQUEST, 1.0) == (200, b"hello")
    with pytest.raises(EngineFailure) as caught:
        await fetch(await serve(b"", close=True), REQUEST, 1.0)
    assert caught.value.reason == "closed"
    with pytest.raises(EngineFailure) as caught:
        await fetch(await serve([PLAIN[:-1]]), REQUEST, 0.05)
    assert caught.value.reason == "timeout"


async def test_memory_of_heads_is_bounded(serve: Serve) -> None:
    client = await serve(PLAIN)
    for number in range(1200):
        client.head(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % number)
    assert len(client._heads) <= 512
