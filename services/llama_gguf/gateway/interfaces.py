"""What the request pipeline needs of its collaborators, as the shapes it calls. `app` puts the real ones in."""

from __future__ import annotations

from typing import Protocol

from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.message import HeaderLines
from llama_gguf.keys.record import KeyRecord, Priority


class Reservation(Protocol):
    """Tokens set aside for one request."""

    @property
    def lines(self) -> HeaderLines:
        """The x-ratelimit headers, as lines."""

    def settle_now(self, tokens_used: int) -> bool:
        """Do what `settle` does, and return True, where that takes no waiting."""

    async def settle(self, tokens_used: int) -> None:
        """Replace the estimate by what was used. Doing it again changes nothing."""

    async def correct(self, tokens_used: int) -> None:
        """Replace what it was settled with: more has become known."""


class Limiter(Protocol):
    """Rates and concurrency per key."""

    def try_reserve(self, record: KeyRecord, tokens: int) -> Reservation | None:
        """Do what `reserve` does where that takes no waiting, else return None."""

    async def reserve(self, record: KeyRecord, tokens: int) -> Reservation:
        """Set `tokens` aside, or raise GatewayError 429."""


class Ticket(Protocol):
    """A place in the engine, after `waited_seconds` in the queue."""

    waited_seconds: float

    def release(self, tokens_used: int | None = None) -> None:
        """Give the place to the next in the queue, and say what was used where that is known."""


class Admission(Protocol):
    """The queue in front of the engine's slots."""

    @property
    def active(self) -> int:
        """Requests that hold a place."""

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""

    @property
    def capacity(self) -> int:
        """Places."""

    def try_acquire(self, key_id: str, cost_tokens: int, priority: Priority) -> Ticket | None:
        """Take a place at once, or return None where somebody must wait."""

    async def acquire(self, key_id: str, cost_tokens: int, priority: Priority) -> Ticket:
        """Wait for a place, or raise GatewayError 503. Cancelling leaves the queue at once."""


class Recorder(Protocol):
    """Metrics, usage and the access log."""

    def ended(self, exchange: Exchange) -> None:
        """Note a request that was answered, or whose client has gone. Called once for each request."""
