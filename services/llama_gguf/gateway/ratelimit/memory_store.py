"""Where the counts behind the limits are kept: what every store does, and the store in this process's memory.

The memory store keeps one small object for each key and does plain arithmetic on it. The `limits` package's own
memory storage is not used: its asyncio one walks every key on each hit (90 us at 1000 keys), its threaded one starts
a thread for that, importing it adds 35 ms to a start, and neither can take back a part of a charge. A test holds
ours to the same answers as that package's sliding-window counter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llama_gguf.errors import ConfigError
from llama_gguf.gateway.ratelimit.quota import WINDOW_SECONDS, Counts, Quota, Refusal, judge, month_end, month_of

if TYPE_CHECKING:
    from llama_gguf.settings.sections.limits import Limits


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
    """Keeps counts. `take` charges all limits or none; `settle` is called exactly once for each charge."""

    async def take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        """Charge one request of `tokens`, if it fits."""

    async def settle(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Make the charge what was really used, and end the request.

        What was too much goes back to the minute and the month it came from. What was too little is charged to the
        present minute, and to the month of the request.
        """

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Change a charge that was settled with `charge.tokens`: more has become known."""

    async def aclose(self) -> None:
        """Let go of connections."""


class LocalStore:
    """Counts in memory. `month_tokens` tells what a key had used this month before this process started."""

    def __init__(self, *, month_tokens: Callable[[str], int] = lambda _: 0) -> None:
        self._month_tokens = month_tokens
        self._counts: dict[str, Counts] = {}
        self._month = 0
        self._month_end = 0.0

    def counts_of(self, key_id: str, now: float) -> Counts:
        """Return the live counts of a key, moved on to `now`."""
        counts = self._counts.get(key_id)
        if counts is not None and -1.0 <= now / WINDOW_SECONDS - counts.minute < 1.0:
            return counts  # still the same minute, hence the same month; a clock that is set back a little is let be
        if now >= self._month_end:
            self._month = month_of(now)
            self._month_end = month_end(self._month)
        minute = int(now // WINDOW_SECONDS)
        if counts is None:
            counts = self._counts[key_id] = Counts(minute, self._month)
            counts.month_tokens = self._month_tokens(key_id)
        elif minute != counts.minute and minute != counts.minute - 1:
            counts.roll(minute)
        if counts.month != self._month:
            counts.month = self._month
            counts.month_tokens = 0
        return counts

    async def take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        """Charge one request of `tokens`, if it fits. Never waits."""
        return self.take_now(key_id, quota, tokens, now)

    async def settle(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Make the charge what was really used. Never waits."""
        self.settle_now(charge, tokens_used, now)

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Change a settled charge. Never waits."""
        self._change(self.counts_of(charge.key_id, now), charge, tokens_used - charge.tokens)

    def take_now(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        """Do what `take` does, without a coroutine: every request passes here."""
        counts = self.counts_of(key_id, now)
        verdict = judge(quota, counts, tokens, now)
        if isinstance(verdict, Refusal):
            return verdict
        counts.requests += 1
        counts.tokens += tokens
        counts.month_tokens += tokens
        counts.in_flight += 1
        return Charge(self, key_id, tokens, now, counts.minute, counts.month, *verdict)

    def settle_now(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Do what `settle` does, without a coroutine."""
        counts = self.counts_of(charge.key_id, now)
        counts.in_flight -= 1
        difference = tokens_used - charge.tokens
        if difference:
            self._change(counts, charge, difference)

    @staticmethod
    def _change(counts: Counts, charge: Charge, difference: int) -> None:
        if charge.month == counts.month:
            counts.month_tokens += difference
        age = counts.minute - charge.minute
        if difference > 0 or age == 0:
            counts.tokens += difference
        elif age == 1:
            counts.previous_tokens += difference

    async def aclose(self) -> None:
        """Nothing to let go of."""


def open_store(
    limits: Limits,
    password: str | None = None,
    *,
    month_tokens: Callable[[str], int] = lambda _: 0,
    on_state: Callable[[bool], None] = lambda _up: None,
    on_failure: Callable[[], None] = lambda: None,
) -> Store:
    """Return the store that `limits.store` names, not connected yet.

    `password` is the content of the variable that `limits.store_password_env` names. `on_state` hears when a shared
    store goes away or comes back, `on_failure` of every call to it that failed. Raises ConfigError.
    """
    local = LocalStore(month_tokens=month_tokens)
    if limits.store == "memory":
        return local
    if limits.store_password_env is not None and not password:
        raise ConfigError(
            f"limits.store_password_env: the variable {limits.store_password_env} is not set",
            hint="give it to `llama-gguf up`, or drop the setting if the store needs no password",
        )
    try:
        from llama_gguf.gateway.ratelimit.fallback_store import FallbackStore  # noqa: PLC0415 - imports this module
        from llama_gguf.gateway.ratelimit.redis_store import SharedStore  # noqa: PLC0415 - 100 ms of imports that only some need
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"limits.store: a shared store needs the Python package {error.name!r}, which is not installed",
            hint='pip install "llama-gguf-inference[redis]", or use `memory`',
        ) from error
    return FallbackStore(SharedStore(limits.store, password), local, on_state=on_state, on_failure=on_failure)
