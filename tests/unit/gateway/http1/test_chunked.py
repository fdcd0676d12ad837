"""The chunk framing of bodies."""

from __future__ import annotations

from llama_gguf.gateway.http1.chunked import chunk


def test_chunk() -> None:
    assert chunk(b"x" * 18) == b"12\r\n" + b"x" * 18 + b"\r\n"
