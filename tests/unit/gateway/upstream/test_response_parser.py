"""The engine's responses, parsed strictly."""

from __future__ import annotations

from llama_gguf.gateway.upstream.response_parser import parse_response_head


def test_a_parsed_head() -> None:
    head = parse_response_head(
        b"HTTP/1.1 204 No Content\r\nServer: x\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: A/B; c=d\r\n\r\n"
    )
    assert (head.length, head.media_type, head.keep_alive) == (0, b"a/b", True)
    assert head.passed == "Content-Type: A/B; c=d\r\n"
