"""Which headers a request must not have, and which say how long its body is."""

from __future__ import annotations

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.header_rules import check_framing, join_headers


def test_repeated_headers() -> None:
    assert join_headers([(b"Accept", b"a"), (b"accept", b"b")]) == {b"accept": b"a, b"}
    for name in (b"Authorization", b"Host", b"X-Own"):
        with pytest.raises(GatewayError):
            join_headers([(name, b"a"), (name, b"a")], extra_singleton=b"x-own")


def test_framing() -> None:
    assert check_framing({}, 10) == 0
    assert check_framing({b"content-length": b"10"}, 10) == 10
    assert check_framing({b"transfer-encoding": b"Chunked "}, 10) is None
    assert check_framing({b"content-encoding": b"identity"}, 10) == 0
    bad: list[tuple[dict[bytes, bytes], int]] = [
        ({b"content-length": b"11"}, 413),
        ({b"content-length": b"-1"}, 400),
        ({b"content-length": b"1" * 30}, 400),
        ({b"content-length": b"\xb2"}, 400),
        ({b"transfer-encoding": b"gzip"}, 400),
        ({b"transfer-encoding": b"chunked", b"content-length": b"1"}, 400),
        ({b"content-encoding": b"br"}, 415),
    ]
    for headers, status in bad:
        with pytest.raises(GatewayError) as caught:
            check_framing(headers, 10)
        assert caught.value.status == status
