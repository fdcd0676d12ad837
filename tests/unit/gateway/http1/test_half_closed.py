"""A client that has ended its half gets its response; one that is gone is noticed, and both send the same FIN."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from llama_gguf.gateway.http1.half_closed import next_probe
from support.http_client import read_answer, request_bytes
from support.running_gateway import Running, chat

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_probes_get_rarer() -> None:
    at, times = 0.0, []
    while at < 60:
        at = next_probe(0.0, at)
        times.append(at)
    assert times == [1, 2, 4, 8, 16, 31, 46, 61]


async def half_closed(port: int, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    return reader, writer


@pytest.mark.parametrize("streams", [False, True])
async def test_it_gets_its_answer_and_then_the_connection_ends(running: Running, streams: bool) -> None:
    body = chat(stream=streams, delay=0.3, pause=0.05)
    reader, writer = await half_closed(running.port, request_bytes("POST", "/v1/chat/completions", body=body))
    assert await reader.readuntil(b"\r\n\r\n") == INTERIM
    answer = await read_answer(reader)
    assert (answer.status, answer.complete) == (200, True)
    assert await reader.read() == b""
    writer.close()
    assert [line["outcome"] for line in await running.lines()] == ["ok"]


async def test_all_that_it_has_asked_in_one_go_is_answered(running: Running) -> None:
    data = request_bytes("POST", "/v1/chat/completions", body=chat(delay=0.1)) + request_bytes("GET", "/ping")
    reader, writer = await half_closed(running.port, data + request_bytes("GET", "/v1/models") + b"GET /ping HT")
    received = await reader.read()
    assert received.replace(INTERIM, b"").count(b"HTTP/1.1 200 OK\r\n") == 3
    writer.close()
    await running.until(lambda: not running.gateway.http_server.connections)


@pytest.mark.parametrize(
    ("streams", "knobs"),
    [
        (False, {"hang_after": -1}),
        (True, {"hang_after": -1}),
        (True, {"hang_after": 2}),
        (True, {"tokens": 1_000_000, "pause": 0.01}),
    ],
)
async def test_one_that_is_gone_costs_nothing_any_more(
    running: Running, streams: bool, knobs: dict[str, float]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(stream=streams, **knobs)))
    await running.until(lambda: bool(running.engine.asked))
    if "hang_after" not in knobs or knobs["hang_after"] > 0:
        await reader.readuntil(b"data:")
    writer.close()
    await running.until(lambda: running.gateway.pipeline.in_flight == 0)
    assert [line["outcome"] for line in await running.lines()] == ["client_gone"]
    assert not running.gateway.http_server.connections


async def test_one_that_waits_and_then_goes_is_noticed_too(running: Running) -> None:
    request = request_bytes("POST", "/v1/chat/completions", body=chat(hang_after=-1))
    reader, writer = await half_closed(running.port, request)
    assert await reader.readuntil(b"\r\n\r\n") == INTERIM
    await running.until(lambda: bool(running.engine.asked))
    writer.close()
    await running.until(lambda: running.engine.asked[0].dropped)  # by the next probe


async def test_one_of_http_1_0_counts_as_gone(running: Running) -> None:
    """It knows no interim responses, so it cannot be asked."""
    request = request_bytes("POST", "/v1/chat/completions", body=chat(hang_after=-1)).replace(b"HTTP/1.1", b"HTTP/1.0")
    reader, writer = await half_closed(running.port, request)
    assert await reader.read() == b""
    await running.until(lambda: running.gateway.pipeline.in_flight == 0)
    writer.close()


@pytest.mark.parametrize("cut", [10, -1])
async def test_half_a_request_is_none(running: Running, cut: int) -> None:
    reader, writer = await half_closed(running.port, request_bytes("POST", "/v1/completions", body=chat())[:cut])
    assert await reader.read() == b""
    writer.close()
    await running.until(lambda: not running.gateway.http_server.connections)
    assert not running.engine.asked


async def test_a_refusal_reaches_it(running: Running) -> None:
    for request, status in (
        (request_bytes("POST", "/v1/chat/completions", body=chat(), key=None), b"401"),
        (request_bytes("POST", "/v1/chat/completions", body=b"{"), b"400"),
        (b"GET / RTSP/1.0\r\n\r\n", b"400"),
    ):
        reader, writer = await half_closed(running.port, request)
        assert (await reader.read()).split(b" ")[1] == status
        writer.close()


@pytest.mark.skipif(shutil.which("nc") is None, reason="there is no nc")
async def test_netcat_gets_its_answer(running: Running) -> None:
    process = await asyncio.create_subprocess_exec(
        *("nc", "-N", "127.0.0.1", str(running.port)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    received, _ = await process.communicate(request_bytes("POST", "/v1/chat/completions", body=chat(delay=0.3)))
    assert b"HTTP/1.1 200 OK\r\n" in received
    assert received.endswith(b"}")
