"""Validates a request's headers before anything acts on them. Pure.

The parser (llhttp) rejects most malformed heads; this checks what it accepts or leaves to the application: repeated
singleton headers, ambiguous message framing, limits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llama_gguf.api_errors import GatewayError

_SINGLETONS = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"x-request-id",
    }
)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Maximum sizes and times for a client's requests."""

    max_body_bytes: int
    max_headers: int
    max_header_line_bytes: int
    max_request_line_bytes: int
    header_seconds: float
    body_seconds: float
    keepalive_seconds: float = 75.0


def join_headers(pairs: Iterable[tuple[bytes, bytes]], extra_singleton: bytes | None = None) -> dict[bytes, bytes]:
    """Return headers by lower-case name; values of repeated headers are joined by commas. Raises GatewayError 400."""
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        name = name.lower()  # noqa: PLW2901 - header names are case-insensitive
        if name in joined:
            if name in _SINGLETONS or name == extra_singleton:
                raise bad_request(f"The header {name.decode('latin-1')} must not be repeated.")
            value = joined[name] + b", " + value  # noqa: PLW2901 - see above
        joined[name] = value
    return joined


def check_framing(headers: dict[bytes, bytes], max_body_bytes: int) -> int | None:
    """Return the length of the body, or None if it is chunked. Raises GatewayError 400, 413 or 415."""
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"", b"identity"):
        raise GatewayError("unsupported_encoding", "Send the request body without Content-Encoding.")
    length = headers.get(b"content-length")
    transfer = headers.get(b"transfer-encoding")
    if transfer is not None:
        if length is not None:
            raise bad_request("Content-Length and Transfer-Encoding must not be sent together.")
        if transfer.strip().lower() != b"chunked":
            raise bad_request("Unsupported Transfer-Encoding; only `chunked` is supported.")
        return None
    if length is None:
        return 0
    if not (length.isdigit() and len(length) <= 18):
        raise bad_request("Content-Length must be a number.")
    if int(length) > max_body_bytes:
        raise too_large(max_body_bytes)
    return int(length)


def bad_request(message: str) -> GatewayError:
    """Return the error for a request that is not valid HTTP."""
    return GatewayError("bad_request", message)


def too_large(max_body_bytes: int) -> GatewayError:
    """Return the error for a body that exceeds the limit."""
    return GatewayError("payload_too_large", f"The request body is larger than {max_body_bytes} bytes.")
