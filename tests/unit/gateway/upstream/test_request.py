"""Requests as the engine gets them."""

from __future__ import annotations

from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.gateway.upstream.response_parser import content_type


def test_requests_to_the_engine() -> None:
    head = engine_head("POST", "/x", "key")
    assert engine_request(head, b"{}", b"application/json") == (
        b"POST /x HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer key\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert engine_request(head, b"", b"").endswith(b"Bearer key\r\n\r\n")
    assert content_type([(b"x", b"y")]) == b""
