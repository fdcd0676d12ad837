from __future__ import annotations

import asyncio

import pytest

from llama_gguf.health import server as server_module
from llama_gguf.health.responses import Response
from llama_gguf.health.server import HealthServer, render


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


async def test_a_silent_client_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_HEADER_TIMEOUT_SECONDS", 0.1)
    assert await talk(b"GET /ping") == b""  # and not never


async def test_too_many_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_MAX_CONNECTIONS", 1)
    async with HealthServer(respond).listening("127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()[:2]
        _first_reader, first = await asyncio.open_connection(*address)
        first.write(b"GET")
        await first.drain()
        await asyncio.sleep(0.05)
        reader, second = await asyncio.open_connection(*address)
        assert await reader.read() == b""
        for writer in (first, second):
            writer.close()
            await writer.wait_closed()


def test_render_keeps_the_content_type() -> None:
    assert b"Content-Type: application/json\r\n" in render(Response(200, b"{}", "application/json"))
    assert b"Content-Type" not in render(Response(503))
