"""Applies the limits of a key: reserve at the start of a request, settle at its end.

Owns the responses (429, Retry-After, x-ratelimit headers); `quota` does the arithmetic, a store keeps the counts. A
request reserves the maximum it can use; when it ends, however it ends, the charge becomes the engine's count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.hold_time import INITIAL_SECONDS, SMOOTHING
from llama_gguf.gateway.ratelimit.quota import WINDOW_SECONDS, LimitName, Quota, Refusal, quota_of
from llama_gguf.gateway.ratelimit.store import Charge, Store
from llama_gguf.keys.record import KeyRecord

if TYPE_CHECKING:
    from llama_gguf.settings.sections.limits import Limits

Headers = tuple[tuple[str, str], ...]

_MAX_RETRY_SECONDS = 60  # OpenAI's clients ignore a Retry-After above it, and repeat at once


class Reservation:
    """What one request has reserved of its key's limits. Settle it when the request has ended, however it ended."""

    __slots__ = ("_charge", "_limiter", "_settled", "_terms")

    def __init__(self, limiter: RateLimiter, charge: Charge, terms: _Terms) -> None:
        self._limiter = limiter
        self._charge = charge
        self._terms = terms
        self._settled = False

    @property
    def lines(self) -> str:
        """The x-ratelimit headers, as of the reservation. Every response has them, so they are serialized by hand."""
        charge, terms = self._charge, self._terms
        requests, tokens, _, _ = terms.quota
        reset = 2 * WINDOW_SECONDS - int(charge.at) % WINDOW_SECONDS
        if reset != terms.reset:
            terms.set_reset(reset)
        if requests is None:
            lines = ""
        else:
            left = int(requests - charge.used_requests)
            lines = f"{terms.requests_lines}{left if left > 0 else 0}{terms.requests_end}"
        if tokens is None:
            return lines
        left = int(tokens - charge.used_tokens)
        return f"{lines}{terms.tokens_lines}{left if left > 0 else 0}{terms.tokens_end}"

    def settle(self, tokens_used: int) -> Awaitable[None] | None:
        """Replace the estimate with what was used, and end the request; later calls do nothing.

        The returned value must be awaited; None if the counts are in memory and settling is done.
        """
        if self._settled:
            return None
        self._settled = True
        return self._limiter.settle(self._charge, tokens_used)

    async def correct(self, tokens_used: int) -> None:
        """Correct the charge of a settled request: its actual use has become known."""
        await self._limiter.correct(self._charge, tokens_used)


class _Terms:
    """The limits of one key, and the constant parts of their header lines."""

    __slots__ = ("quota", "record", "requests_end", "requests_lines", "reset", "tokens_end", "tokens_lines")

    def __init__(self, record: KeyRecord, quota: Quota) -> None:
        self.record = record
        self.quota = quota
        self.requests_lines = f"x-ratelimit-limit-requests: {quota.requests}\r\nx-ratelimit-remaining-requests: "
        self.tokens_lines = f"x-ratelimit-limit-tokens: {quota.tokens}\r\nx-ratelimit-remaining-tokens: "
        self.set_reset(0)

    def set_reset(self, reset: int) -> None:
        """Create the lines for the current second, with the time until the limits are fully available again."""
        self.reset = reset
        self.requests_end = f"\r\nx-ratelimit-reset-requests: {reset}s\r\n"
        self.tokens_end = f"\r\nx-ratelimit-reset-tokens: {reset}s\r\n"


class RateLimiter:
    """Applies the limits of each key. `clock` returns seconds since the epoch: replicas must count the same minutes.

    `on_refused` is called with the limit that rejected a request, and the key.
    """

    def __init__(
        self,
        limits: Limits,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        on_refused: Callable[[LimitName, str], None] = lambda _limit, _key_id: None,
    ) -> None:
        self._defaults = limits
        self._store = store
        self._clock = clock
        self._on_refused = on_refused
        self._known: dict[str, _Terms] = {}
        self._mean_duration = INITIAL_SECONDS  # moving average of the duration of a request, in seconds

    async def reserve(self, record: KeyRecord, tokens: int) -> Reservation:
        """Charge one request of at most `tokens` to a key. Raises GatewayError 429.

        A caller that is cancelled during the call of a shared store is not charged.
        """
        now = self._clock()
        terms = self._terms(record)
        outcome = await self._store.take(record.id, terms.quota, tokens, now)
        if isinstance(outcome, Refusal):
            self._on_refused(outcome.limit, record.id)
            raise self._refused(outcome, terms.quota, tokens, now)
        return Reservation(self, outcome, terms)

    def settle(self, charge: Charge, tokens_used: int) -> Awaitable[None] | None:
        """Settle a charge. For Reservation only, which calls it once."""
        return self._store.settle(charge, tokens_used, self._ended(charge))

    def _ended(self, charge: Charge) -> float:
        """Update the average duration of a request, and return the time."""
        now = self._clock()
        self._mean_duration += SMOOTHING * (now - charge.at - self._mean_duration)
        return now

    async def correct(self, charge: Charge, tokens_used: int) -> None:
        """Correct a settled charge. For Reservation only."""
        if tokens_used != charge.tokens:
            await self._store.correct(charge, tokens_used, self._clock())

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()

    def _terms(self, record: KeyRecord) -> _Terms:
        known = self._known.get(record.id)
        if known is None or known.record is not record:  # a reload creates new records
            known = self._known[record.id] = _Terms(record, quota_of(record, self._defaults))
        return known

    def _refused(self, refusal: Refusal, quota: Quota, tokens: int, now: float) -> GatewayError:
        wait = self._mean_duration / refusal.allowed if refusal.limit == "concurrency" else refusal.wait_seconds
        retry_after = None if math.isinf(wait) else max(1, math.ceil(wait))
        if retry_after is not None and refusal.limit != "monthly_tokens":
            retry_after = min(retry_after, _MAX_RETRY_SECONDS)
        return GatewayError(
            "insufficient_quota" if refusal.limit == "monthly_tokens" else "rate_limit_exceeded",
            _explain(refusal, tokens, retry_after),
            retry_after=retry_after,
            headers=rate_headers(quota, refusal.used_requests, refusal.used_tokens, now),
            final=True if retry_after is None else None,
        )


def rate_headers(quota: Quota, used_requests: float, used_tokens: float, now: float) -> Headers:
    """Return the x-ratelimit headers of all effective limits.

    `reset` is the time until the limit is fully available again if nothing more is used: the rest of this clock minute
    and the next one, during which the present use leaves the sliding window.
    """
    reset = f"{math.ceil(2 * WINDOW_SECONDS - now % WINDOW_SECONDS)}s"
    headers: Headers = ()
    if quota.requests is not None:
        headers = (
            ("x-ratelimit-limit-requests", str(quota.requests)),
            ("x-ratelimit-remaining-requests", str(max(0, int(quota.requests - used_requests)))),
            ("x-ratelimit-reset-requests", reset),
        )
    if quota.tokens is not None:
        headers += (
            ("x-ratelimit-limit-tokens", str(quota.tokens)),
            ("x-ratelimit-remaining-tokens", str(max(0, int(quota.tokens - used_tokens)))),
            ("x-ratelimit-reset-tokens", reset),
        )
    return headers


def _explain(refusal: Refusal, tokens: int, retry_after: int | None) -> str:
    allowed = refusal.allowed
    if retry_after is None:
        period = "month" if refusal.limit == "monthly_tokens" else "minute"
        return (
            f"This request can use up to {tokens} tokens, more than the key's limit of {allowed} per {period}: "
            "shorten the prompt or set a lower max_tokens."
        )
    match refusal.limit:
        case "requests":
            return f"This key is limited to {allowed} requests per minute; try again in {retry_after} s."
        case "tokens":
            return (
                f"This key is limited to {allowed} tokens per minute, {math.ceil(refusal.used)} of them are used and "
                f"this request can use up to {tokens}; try again in {retry_after} s or set a lower max_tokens."
            )
        case "concurrency":
            return f"This key is limited to {allowed} concurrent requests; try again when one has completed."
        case "monthly_tokens":
            return (
                f"This key is limited to {allowed} tokens per month, {max(0, int(allowed - refusal.used))} of them "
                f"remain and this request can use up to {tokens}."
            )
