"""What requests may hold before they are complete: bytes of bodies, by key and in all, and requests of a key.

A body that never ends costs memory however strict the limits are that are applied to complete requests. So a request's
bytes are reserved as soon as its head is there: as many as it announces, or the maximum if it does not say; once the
body is there, those that it has. Belongs to one event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llama_gguf.api_errors import GatewayError
from llama_gguf.keys.record import KeyRecord

if TYPE_CHECKING:
    from llama_gguf.gateway.ratelimit.quota import LimitName
    from llama_gguf.settings.sections.limits import Limits

_RETRY_SECONDS = 1


class _Held:
    """What the requests of one key hold."""

    __slots__ = ("requests", "size")

    def __init__(self) -> None:
        self.requests = 0
        self.size = 0


class Intake:
    """Counts open requests and the bytes of their bodies. Each `enter` is ended by one `leave` of the same bytes.

    `on_refused` is called with the limit that rejected a request, and the key.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        max_body_bytes: int,
        on_refused: Callable[[LimitName, str], None] = lambda _limit, _key_id: None,
    ) -> None:
        self._on_refused = on_refused
        self._per_key = limits.max_body_bytes_per_key
        self._in_all = limits.max_body_bytes_in_all
        self._concurrency = limits.concurrency
        self._max_body = max_body_bytes
        self._held: dict[str, _Held] = {}  # by key; none that holds nothing
        self._total = 0

    def enter(self, key: KeyRecord, length: int | None) -> int:
        """Reserve the bytes of a request's body, None if it does not say how many; return them. Raises GatewayError."""
        held = self._held.get(key.id)
        limit = key.concurrency if key.concurrency is not None else self._concurrency
        if limit is not None and (held.requests if held is not None else 0) >= limit:
            self._on_refused("concurrency", key.id)
            raise GatewayError(
                "rate_limit_exceeded",
                f"This key is limited to {limit} concurrent requests; try again when one has completed.",
                retry_after=_RETRY_SECONDS,
            )
        wanted = self._max_body if length is None else length
        if wanted:
            self._check_room(held.size if held is not None else 0, wanted)
        if held is None:
            held = self._held[key.id] = _Held()
        held.requests += 1
        held.size += wanted
        self._total += wanted
        return wanted

    def _check_room(self, held: int, wanted: int) -> None:
        if held and held + wanted > self._per_key:
            raise GatewayError(
                "rate_limit_exceeded",
                "This key's requests in progress are too large together; try again when some have completed.",
                retry_after=_RETRY_SECONDS,
            )
        if held < self._total and self._total + wanted > self._in_all:
            raise GatewayError(
                "queue_full", "Too many large requests are in progress; try again later.", retry_after=_RETRY_SECONDS
            )

    def arrived(self, key: KeyRecord, reserved: int, length: int) -> int:
        """Correct the bytes of a request whose body is there; return them."""
        self._held[key.id].size += length - reserved
        self._total += length - reserved
        return length

    def leave(self, key: KeyRecord, size: int) -> None:
        """Release what a request held."""
        held = self._held[key.id]
        self._total -= size
        if held.requests == 1:
            del self._held[key.id]
        else:
            held.requests -= 1
            held.size -= size
