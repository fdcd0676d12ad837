"""Slows down whoever sends wrong keys, by peer. Pure: the caller passes the time.

Keys are judged first, so a valid one always works, also from the address of a proxy or NAT that others guess from. What
changes after many wrong ones is the response: 429 instead of 401, and the connection is closed, so that each further
guess costs a connection.
"""

from __future__ import annotations

import math

from llama_gguf.api_errors import GatewayError

BURST = 60
SECONDS_EACH = 1.0
"""Wrong keys that a peer may send at once, and the time after which it may send one more."""
MAX_PEERS = 4096


class WrongKeys:
    """Remembers when each peer will have its whole allowance again; of too many peers, the ones that last sent one."""

    __slots__ = ("_free_at",)

    def __init__(self) -> None:
        self._free_at: dict[str, float] = {}

    def count(self, peer: str, now: float) -> GatewayError | None:
        """Count a wrong key; return the error to respond with instead of 401 if there were too many."""
        free_at = self._free_at
        at = max(free_at.pop(peer, now), now) + SECONDS_EACH
        excess = at - now - BURST * SECONDS_EACH
        if excess > 0:
            at -= SECONDS_EACH  # what is refused does not prolong the wait
        free_at[peer] = at
        if len(free_at) > MAX_PEERS:
            del free_at[next(iter(free_at))]
        if excess <= 0:
            return None
        return GatewayError(
            "too_many_invalid_keys",
            "Invalid or expired API key, and too many of them came from your address. A valid key works at once.",
            retry_after=math.ceil(excess),
        )
