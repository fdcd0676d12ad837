"""Responses on their way into a client's connection."""

from __future__ import annotations

import asyncio

import pytest

from llama_gguf.gateway.http1.header_rules import HttpLimits
from support.http_client import request_bytes
from support.running_gateway import Start, chat


async def test_an_answer_nobody_takes_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_gguf.gateway.http1.connection.STALL_SECONDS", 0.1)
    running = await start()
    running.gateway.http_server.limits = HttpLimits(10_000_000, 64, 8192, 8192, 30, 30, keepalive_seconds=0.1)
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(tokens=1, event_bytes=30_000_000)))
    await running.lines(1)
    await running.until(lambda: not running.gateway.http_server.connections)
    writer.close()
