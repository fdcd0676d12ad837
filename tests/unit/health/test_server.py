from __future__ import annotations

import asyncio
import contextlib

import pytest

from llama_gguf.health.responses import Response
from llama_gguf.health.server import LIMITS, HealthServer, render
from llama_gguf.open_connections import ConnectionLimits


def respond(path: str) -> Response:
    return Response(204) if path == "/ping" else Response(200, path.encode())


async def talk(request: bytes, *, eof: bool = False) -> bytes:
    async with HealthServer(respond).listening("127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(request)
        if eof:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


async def test_get() -> None:
    assert await talk(b"GET /livez?verbose HTTP/1.1\r\nHost: x\r\n\r\n") == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Cache-Control: no-store\r\nConnection: close\r\n\r\n/livez"
    )


async def test_204_has_neither_body_nor_length() -> None:
    answer = await talk(b"GET /ping HTTP/1.1\r\n\r\n")
    assert answer == b"HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"


async def test_head_has_the_length_and_no_body() -> None:
    answer = await talk(b"HEAD /readyz HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 7\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /ping HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET ping HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /ping HTTP/2\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"200"),
    ],
)
async def test_odd_requests(request_: bytes, status: bytes) -> None:
    answer = await talk(request_)
    assert answer.split(b" ")[1] == status
    assert (b"\r\nAllow: GET, HEAD\r\n" in answer) == (status == b"405")


async def test_half_a_request_gets_no_answer() -> None:
    assert await talk(b"GET /ping HT", eof=True) == b""


async def test_a_silent_client_is_left_in_time() -> None:
    server = HealthServer(respond, timeout_seconds=0.1)
    for begin in (b"", b"GET /ping"):
        async with server.listening("127.0.0.1", 0) as listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
            writer.write(begin)
            assert await at_end(reader) == b""  # and not never
            writer.close()


async def test_a_client_that_sends_one_byte_after_the_other_is_left_in_time() -> None:
    async with HealthServer(respond, timeout_seconds=0.2).listening("127.0.0.1", 0) as listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])

        async def trickle() -> None:
            with contextlib.suppress(OSError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        assert await at_end(reader) == b""
        trickling.cancel()
        writer.close()


@pytest.mark.parametrize("begin", [b"", b"GET /ping HTTP/1.1\r\nX: "])
async def test_connections_that_ask_for_nothing_shut_nobody_out(begin: bytes) -> None:
    """Issue 11: 256 of them made 67 of 69 pings fail. The platform's can come from the same address."""
    async with HealthServer(respond, timeout_seconds=600).listening("127.0.0.1", 0) as listening:
        address = listening.sockets[0].getsockname()[:2]
        idle: list[asyncio.StreamWriter] = []
        for number in range(2 * LIMITS.in_all):
            idle.append((await asyncio.open_connection(*address))[1])
            idle[-1].write(begin)
            if number % 32 == 0:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 204")
                writer.close()
        for writer in idle:
            writer.close()


async def test_a_peers_oldest_connection_is_given_up() -> None:
    limits = ConnectionLimits(in_all=8, per_peer=2)
    async with HealthServer(respond, limits=limits, timeout_seconds=600).listening("127.0.0.1", 0) as listening:
        address = listening.sockets[0].getsockname()[:2]
        opened = [await asyncio.open_connection(*address) for _ in range(3)]
        assert await at_end(opened[0][0]) == b""
        for reader, writer in opened[1:]:
            writer.write(b"GET /ping HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 204")
        for _, writer in opened:
            writer.close()


async def test_a_refusal_reaches_a_client_that_goes_on_sending() -> None:
    async with HealthServer(respond).listening("127.0.0.1", 0) as listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
        writer.write(b"POST /ping HTTP/1.1\r\nContent-Length: 40000\r\n\r\n")
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 40_000)
        await writer.drain()
        assert head.startswith(b"HTTP/1.1 405")
        assert await reader.read() == b"method not allowed; use GET or HEAD\n"
        writer.close()


async def at_end(reader: asyncio.StreamReader) -> bytes:
    """Return what is left to read; a reset is an end too."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_render_keeps_the_content_type() -> None:
    assert b"Content-Type: application/json\r\n" in render(Response(200, b"{}", "application/json"))
    assert b"Content-Type" not in render(Response(503))
