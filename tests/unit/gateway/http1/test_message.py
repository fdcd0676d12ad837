"""Header lines of a response."""

from __future__ import annotations

from llama_gguf.gateway.http1.message import header_lines


def test_no_value_can_end_its_header_line() -> None:
    assert header_lines([("A", "b\r\nSet-Cookie: c"), ("D", "e\nf")]) == "A: b Set-Cookie: c\r\nD: e f\r\n"
