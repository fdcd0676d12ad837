"""Cross-origin access for browsers: which headers an answer gets, and the answer to a preflight. Pure.

Off unless origins are listed. The engine's own CORS headers never pass; these are the only ones.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_ORIGIN_BYTES = 2048
_EXPOSED = (
    "X-Request-Id, Request-Id, Retry-After, X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, "
    "X-RateLimit-Reset-Requests, X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens"
)
_ALLOWED_HEADERS = "Authorization, Content-Type, X-Api-Key, X-Request-Id, Anthropic-Version, Anthropic-Beta"


class Cors:
    """The cross-origin rules of one configuration."""

    __slots__ = ("_any", "_listed", "_max_age", "enabled")

    def __init__(self, origins: Sequence[str], max_age_seconds: int) -> None:
        self.enabled = bool(origins)
        self._any = "*" in origins
        self._listed = frozenset(origin.encode("latin-1", "ignore") for origin in origins)
        self._max_age = str(max_age_seconds)

    def headers(self, origin: bytes | None) -> list[tuple[str, str]]:
        """Return what every answer to a request from `origin` carries."""
        if not self.enabled:
            return []
        if self._any:
            return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", _EXPOSED)]
        # The answer depends on the origin even where it is refused or absent: caches must know.
        if origin is None or len(origin) > MAX_ORIGIN_BYTES or origin not in self._listed:
            return [("Vary", "Origin")]
        return [
            ("Access-Control-Allow-Origin", origin.decode("latin-1")),
            ("Access-Control-Expose-Headers", _EXPOSED),
            ("Vary", "Origin"),
        ]

    def preflight(
        self, origin: bytes | None, asked_headers: bytes | None, methods: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Return the headers of the answer to OPTIONS; what is allowed is said only to an allowed origin."""
        headers = self.headers(origin)
        if not any(name == "Access-Control-Allow-Origin" for name, _ in headers):
            return headers
        allowed = ", ".join([*methods, "OPTIONS"])
        names = _ALLOWED_HEADERS
        if asked_headers is not None and _is_header_list(asked_headers):
            names = asked_headers.decode("ascii")
            headers.append(("Vary", "Access-Control-Request-Headers"))
        return [
            *headers,
            ("Access-Control-Allow-Methods", allowed),
            ("Access-Control-Allow-Headers", names),
            ("Access-Control-Max-Age", self._max_age),
        ]


def _is_header_list(value: bytes) -> bool:
    """Return whether a client's list of header names is safe to repeat (stainless SDKs send a dozen of their own)."""
    if not 0 < len(value) <= MAX_ORIGIN_BYTES:
        return False
    names = value.split(b",")
    return all(name.strip().replace(b"-", b"").replace(b"_", b"").isalnum() for name in names)
