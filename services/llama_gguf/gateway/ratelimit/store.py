"""The interface of the stores of the limits' counts, and the charge they return. Knows no store."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from llama_gguf.gateway.ratelimit.quota import Quota, Refusal


class StoreUnreachableError(Exception):
    """The shared store did not respond, or not in time."""


@dataclass(slots=True)
class Charge:
    """What one request was charged, in which store: enough for the response headers and to settle it."""

    store: Store
    key_id: str
    tokens: int
    at: float
    minute: int  # minutes and months as quota.Counts numbers them
    month: int
    used_requests: float  # in the sliding minute, this request included
    used_tokens: float
    lease: str = ""  # its entry in a shared count of requests in flight


class Store(Protocol):
    """Keeps counts. `take` charges all limits or none; `settle` is called exactly once for each charge.

    `settle` and `correct` set `charge.tokens` to the actual use.
    """

    async def take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        """Charge one request of `tokens`, if it fits."""

    def settle(self, charge: Charge, tokens_used: int, now: float) -> Awaitable[None] | None:
        """Replace the charge with the actual use, and end the request. None: done, there is nothing to await.

        An excess is refunded to the minute and the month that were charged. A shortfall is charged to the current
        minute, and to the month of the request.
        """

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Correct a charge that was settled with `charge.tokens`: the actual use has become known."""

    async def aclose(self) -> None:
        """Close connections."""
