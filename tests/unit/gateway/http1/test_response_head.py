"""The head of a response, as bytes."""

from __future__ import annotations

import re
import time

import pytest

from llama_gguf.gateway.http1.response_head import ResponseHeadWriter


def test_written_heads() -> None:
    writer = ResponseHeadWriter()
    whole = writer.fixed_length(200, "A: b\r\n", 5, close=True)
    assert re.fullmatch(
        rb"HTTP/1.1 200 OK\r\nServer: llama-gguf\r\nDate: [^\r]+ GMT\r\nA: b\r\nContent-Length: 5\r\n"
        rb"Connection: close\r\n\r\n",
        whole,
    )
    assert b"Content-Length" not in writer.fixed_length(204, "", 0, close=False)
    assert writer.fixed_length(599, "", 0, close=False).startswith(b"HTTP/1.1 599 Unknown\r\n")
    assert b"Transfer-Encoding: chunked" in writer.stream(200, "", chunked=True, close=False)
    assert b"Transfer-Encoding" not in writer.stream(200, "", chunked=False, close=True)


def test_dates_move_on(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ResponseHeadWriter()
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    first = writer.fixed_length(200, "", 0, close=False)
    assert writer.fixed_length(200, "", 0, close=False) == first
    monkeypatch.setattr(time, "time", lambda: 1001.0)
    assert writer.fixed_length(200, "", 0, close=False) != first
