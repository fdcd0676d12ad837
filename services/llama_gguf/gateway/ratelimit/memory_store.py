"""The counts of the limits, in this process's memory.

One small object for each key and plain arithmetic on it. The `limits` package's own memory storage is not used: its
asyncio one iterates over all keys on each hit (90 us at 1000 keys), its threaded one starts a thread for that,
importing it adds 35 ms to a start, and neither can refund part of a charge. A test checks that the results are those of
that package's sliding-window counter.
"""

from __future__ import annotations

from collections.abc import Callable

from llama_gguf.gateway.ratelimit.quota import WINDOW_SECONDS, Counts, Quota, Refusal, judge, month_end, month_of
from llama_gguf.gateway.ratelimit.store import Charge


class LocalStore:
    """Counts in memory. `month_tokens` returns what a key had used this month before this process started."""

    def __init__(self, *, month_tokens: Callable[[str], int] = lambda _: 0) -> None:
        self._month_tokens = month_tokens
        self._counts: dict[str, Counts] = {}
        self._month = 0
        self._month_end = 0.0

    def counts_of(self, key_id: str, now: float) -> Counts:
        """Return the live counts of a key, advanced to `now`."""
        counts = self._counts.get(key_id)
        if counts is not None and -1.0 <= now / WINDOW_SECONDS - counts.minute < 1.0:
            return counts  # the same minute, hence the same month; a clock set back by up to a minute is ignored
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
        counts = self.counts_of(key_id, now)
        verdict = judge(quota, counts, tokens, now)
        if isinstance(verdict, Refusal):
            return verdict
        counts.requests += 1
        counts.tokens += tokens
        counts.month_tokens += tokens
        counts.in_flight += 1
        return Charge(self, key_id, tokens, now, counts.minute, counts.month, *verdict)

    def settle(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Replace the charge with the actual use. Never waits."""
        counts = self.counts_of(charge.key_id, now)
        counts.in_flight -= 1
        self._change(counts, charge, tokens_used)

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Correct a settled charge. Never waits."""
        self._change(self.counts_of(charge.key_id, now), charge, tokens_used)

    @staticmethod
    def _change(counts: Counts, charge: Charge, tokens_used: int) -> None:
        difference = tokens_used - charge.tokens
        charge.tokens = tokens_used
        if charge.month == counts.month:
            counts.month_tokens += difference
        age = counts.minute - charge.minute
        if difference > 0 or age == 0:
            counts.tokens += difference
        elif age == 1:
            counts.previous_tokens += difference

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""
