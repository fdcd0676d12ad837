"""The head of a request, parsed."""

from __future__ import annotations

from llama_gguf.gateway.http1.header_rules import HttpLimits
from llama_gguf.gateway.http1.request_parser import parse_head

LIMITS = HttpLimits(1000, 16, 512, 256, 1.0, 1.0)


def test_a_parsed_request_head() -> None:
    head = parse_head(b"GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nConnection: Close\r\n\r\n", LIMITS)
    assert (head.method, head.path, head.query, head.length) == ("GET", "/a/b", "c=d", 0)
    assert head.headers[b"x-a"] == b"1"
    assert not head.keep_alive
    assert parse_head(b"GET https://x HTTP/1.1\r\nHost: x\r\n\r\n", LIMITS).path == "/"
