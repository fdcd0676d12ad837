"""CORS: the headers of a cross-origin response, and of the response to a preflight request. Pure.

Disabled unless origins are listed. The engine's own CORS headers are never passed on.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_ORIGIN_BYTES = 2048
_EXPOSED = (
    "X-Request-Id, Request-Id, Retry-After, Warning, X-Changed-Parameters, X-Queue-Position, x-should-retry, "
    "X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, "
    "X-RateLimit-Reset-Requests, X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens"
)
_ALLOWED_HEADERS = "Authorization, Content-Type, X-Api-Key, X-Request-Id, Anthropic-Version, Anthropic-Beta"


class Cors:
    """The CORS rules of one configuration."""

    __slots__ = ("_any", "_listed", "_max_age", "enabled")

    def __init__(self, origins: Sequence[str], max_age_seconds: int) -> None:
        self.enabled = bool(origins)
        self._any = "*" in origins
        self._listed = frozenset(origin.encode("latin-1", "ignore") for origin in origins)
        self._max_age = str(max_age_seconds)

    def headers(self, origin: bytes | None) -> list[tuple[str, str]]:
        """Return the headers of every response to a request from `origin`."""
        if not self.enabled:
            return []
        if self._any:
            return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", _EXPOSED)]
        # The response depends on the origin even where it is not allowed or absent: caches must know.
        if origin is None or len(origin) > MAX_ORIGIN_BYTES or origin not in self._listed:
            return [("Vary", "Origin")]
        return [
            ("Access-Control-Allow-Origin", origin.decode("latin-1")),
            ("Access-Control-Expose-Headers", _EXPOSED),
            ("Vary", "Origin"),
        ]

    def preflight(
        self, origin: bytes | None, requested_headers: bytes | None, methods: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Return the headers of a preflight response; only an allowed origin learns the methods and headers."""
        headers = self.headers(origin)
        if not any(name == "Access-Control-Allow-Origin" for name, _ in headers):
            return headers
        allowed = ", ".join([*methods, "OPTIONS"])
        names = _ALLOWED_HEADERS
        if requested_headers is not None and _is_header_list(requested_headers):
            names = requested_headers.decode("ascii")
            headers.append(("Vary", "Access-Control-Request-Headers"))
        return [
            *headers,
            ("Access-Control-Allow-Methods", allowed),
            ("Access-Control-Allow-Headers", names),
            ("Access-Control-Max-Age", self._max_age),
        ]


def _is_header_list(value: bytes) -> bool:
    """Return whether a client's list of header names is safe to echo (Stainless SDKs send a dozen of their own)."""
    if not 0 < len(value) <= MAX_ORIGIN_BYTES:
        return False
    names = value.split(b",")
    return all(name.strip().replace(b"-", b"").replace(b"_", b"").isalnum() for name in names)
