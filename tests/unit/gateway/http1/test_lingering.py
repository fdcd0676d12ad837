"""How long a refused upload is read on."""

from __future__ import annotations

import asyncio

from llama_gguf.gateway.http1.lingering import MAX_BYTES, MAX_SECONDS, SILENT_SECONDS, Lingering
from support.http_client import read_answer
from support.running_gateway import Running, Start


def test_until_the_body_is_complete() -> None:
    lingering = Lingering(100, 0.0)
    assert lingering.receive(99, 1.0)
    assert not lingering.receive(1, 2.0)
    assert lingering.complete


def test_as_long_as_bytes_arrive_and_no_longer_than_half_a_minute() -> None:
    lingering = Lingering(None, 0.0)
    assert lingering.deadline == SILENT_SECONDS
    for second in range(1, 60):
        assert lingering.receive(1, second)
        assert lingering.deadline == min(second + SILENT_SECONDS, MAX_SECONDS)


def test_no_more_bytes_than_the_bound() -> None:
    for remaining in (None, MAX_BYTES + 1):
        lingering = Lingering(remaining, 0.0)
        assert not lingering.receive(MAX_BYTES, 0.0)
        assert not lingering.complete


async def test_a_client_that_sends_all_before_it_reads_gets_its_refusal(start: Start) -> None:
    """As Java's and .NET's do. 401 without a key, 413 by length, 413 in the middle of chunks."""
    running = await start({"gateway": {"max_body_bytes": 20_000_000}})
    size = 16_000_000
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
    chunk = b"%x\r\n%b\r\n" % (1_000_000, b"x" * 1_000_000)
    for head, piece, status in (
        (post + b"Content-Length: %d\r\n\r\n" % size, b"x" * 1_000_000, 401),
        (post + b"Content-Length: 50000000\r\n\r\n", b"x" * 1_000_000, 413),
        (post + b"Transfer-Encoding: chunked\r\n\r\n", chunk, 401),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(head)
        for _ in range(size // 1_000_000):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        assert (await read_answer(reader)).status == status
        writer.close()


async def test_a_refused_upload_is_let_go_once_it_is_complete(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
    assert (await read_answer(reader)).status == 401
    assert running.gateway.http_server.connections  # still reads
    writer.write(b"x" * 100)
    await running.until(lambda: not running.gateway.http_server.connections)
    writer.close()
