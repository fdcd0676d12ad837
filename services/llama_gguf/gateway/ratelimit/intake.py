"""What requests may hold before they are complete: bytes of bodies, by key and in all, and requests of a key.

A body that never ends costs memory however strict the limits are that are applied to complete requests. So a request's
bytes are reserved as soon as its head is there: as many as it announces, or the maximum if it does not say; once the
body is there, those that it has. Belongs to one event loop.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llama_gguf.api_errors import GatewayError
from llama_gguf.keys.record import KeyRecord

if TYPE_CHECKING:
    from llama_gguf.settings.sections.limits import Limits

_RETRY_SECONDS = 1


class Intake:
    """Counts open requests and the bytes of their bodies. Each `enter` is ended by one `leave` of the same bytes."""

    def __init__(self, limits: Limits, *, max_body_bytes: int) -> None:
        self._per_key = limits.max_body_bytes_per_key
        self._in_all = limits.max_body_bytes_in_all
        self._concurrency = limits.concurrency
        self._max_body = max_body_bytes
        self._bytes: Counter[str] = Counter()
        self._total = 0
        self._open: Counter[str] = Counter()

    def enter(self, key: KeyRecord, length: int | None) -> int:
        """Reserve the bytes of a request's body, None if it does not say how many; return them. Raises GatewayError."""
        name = key.id
        limit = key.concurrency if key.concurrency is not None else self._concurrency
        if limit is not None and self._open[name] >= limit:
            raise GatewayError(
                "rate_limit_exceeded",
                f"This key is limited to {limit} concurrent requests; try again when one has completed.",
                retry_after=_RETRY_SECONDS,
            )
        wanted = self._max_body if length is None else length
        held = self._bytes[name] if wanted else 0
        if held and held + wanted > self._per_key:
            raise GatewayError(
                "rate_limit_exceeded",
                "This key's requests in progress are too large together; try again when some have completed.",
                retry_after=_RETRY_SECONDS,
            )
        if held < self._total and wanted and self._total + wanted > self._in_all:
            raise GatewayError(
                "queue_full", "Too many large requests are in progress; try again later.", retry_after=_RETRY_SECONDS
            )
        self._open[name] += 1
        self._add(name, wanted)
        return wanted

    def arrived(self, key: KeyRecord, reserved: int, length: int) -> int:
        """Correct the bytes of a request whose body is there; return them."""
        if reserved != length:
            self._add(key.id, length - reserved)
        return length

    def leave(self, key: KeyRecord, held: int) -> None:
        """Release what a request held."""
        name = key.id
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
        self._add(name, -held)

    def _add(self, name: str, size: int) -> None:
        if size:
            self._total += size
            self._bytes[name] += size
            if not self._bytes[name]:
                del self._bytes[name]
