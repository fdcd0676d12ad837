"""What an attacker sends: bodies that are all framing, upgrades in the middle of one, counts inside a text."""

from __future__ import annotations

import asyncio

import pytest

from llama_gguf.gateway.tokens.counts import read_tokens
from support.gateway_box import KEY
from support.http_client import exchange
from support.running_gateway import Running

AUTH = f"Authorization: Bearer {KEY}\r\n".encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + AUTH


@pytest.mark.parametrize("rest", [b"", b"2\r\n{}\r\n0\r\n\r\n"])
async def test_an_upgrade_with_a_chunked_body_gets_an_answer(running: Running, rest: bytes) -> None:
    head = POST + b"Upgrade: x\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n"
    (answer,) = await exchange(running.port, head + rest)
    assert (answer.status, answer.error["code"]) == (400, "bad_request")
    assert (await running.lines())[0]["status"] == 400


@pytest.mark.parametrize("begin", [b"0\r\nX: ", b"0\r\n", b"2;"])
async def test_framing_without_end_is_refused(running: Running, begin: bytes) -> None:
    more = b"X: y\r\n" * 20_000 if begin == b"0\r\n" else b"y" * 120_000
    head = b"GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with asyncio.timeout(3):
        (answer,) = await exchange(running.port, head + begin + more)
    assert answer.status == 400


def test_counts_inside_a_tool_call_are_not_the_engines() -> None:
    spoof = (
        b'{"content":[{"type":"tool_use","input":{"timings":{"predicted_n":0}}}],'
        b'"usage":{"input_tokens":5,"output_tokens":9}}'
    )
    tokens = read_tokens(spoof)
    assert tokens is not None
    assert (tokens.prompt, tokens.completion) == (5, 9)
