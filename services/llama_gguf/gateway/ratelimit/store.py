"""What every store of the counts behind the limits does, and the charge it hands out. Knows no store."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from llama_gguf.gateway.ratelimit.quota import Quota, Refusal


class StoreUnreachableError(Exception):
    """The shared store did not answer, or not in time."""


@dataclass(slots=True)
class Charge:
    """What one request was charged, and where: enough to tell the client and to settle it."""

    store: Store
    key_id: str
    tokens: int
    at: float
    minute: int  # minutes and months as quota.Counts numbers them
    month: int
    used_requests: float  # of the sliding minute, this request included
    used_tokens: float
    lease: str = ""  # its place in a shared count of requests in flight


class Store(Protocol):
    """Keeps counts. `take` charges all limits or none; `settle` is called exactly once for each charge.

    `settle` and `correct` make `charge.tokens` what was used.
    """

    async def take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        """Charge one request of `tokens`, if it fits."""

    def settle(self, charge: Charge, tokens_used: int, now: float) -> Awaitable[None] | None:
        """Make the charge what was really used, and end the request. None: it is done, nothing is to be awaited.

        What was too much goes back to the minute and the month it came from. What was too little is charged to the
        present minute, and to the month of the request.
        """

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Change a charge that was settled with `charge.tokens`: more has become known."""

    async def aclose(self) -> None:
        """Let go of connections."""
