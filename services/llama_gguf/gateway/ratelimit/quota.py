"""The arithmetic of a key's limits. Pure.

Requests and tokens are limited over a sliding minute, computed like the `limits` package's sliding-window counter: the
count of this clock minute, plus that of the previous one weighted by the part of it that the sliding minute still
covers. Unlike there, a charge can be settled afterwards. Tokens can also have a quota per calendar month (UTC).
"""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from llama_gguf.keys.record import KeyRecord

if TYPE_CHECKING:
    from llama_gguf.settings.sections.limits import Limits

WINDOW_SECONDS = 60

LimitName = Literal["requests", "tokens", "concurrency", "monthly_tokens"]


class Quota(NamedTuple):
    """The effective limits of one key; None = unlimited."""

    requests: int | None
    tokens: int | None
    concurrency: int | None
    monthly_tokens: int | None


def quota_of(record: KeyRecord, defaults: Limits) -> Quota:
    """Return the effective limits of a key: its own, else the defaults."""
    return Quota(
        _own_or(record.requests_per_minute, defaults.requests_per_minute),
        _own_or(record.tokens_per_minute, defaults.tokens_per_minute),
        _own_or(record.concurrency, defaults.concurrency),
        _own_or(record.monthly_tokens, defaults.monthly_tokens),
    )


def _own_or(own: int | None, default: int | None) -> int | None:
    return default if own is None else own


class Counts:
    """What a key has used in the clock minute `minute` (minutes since the epoch), the previous one and `month`."""

    __slots__ = (
        "in_flight",
        "minute",
        "month",
        "month_tokens",
        "previous_requests",
        "previous_tokens",
        "requests",
        "tokens",
    )

    def __init__(self, minute: int, month: int) -> None:
        self.minute = minute
        self.month = month
        self.requests = 0
        self.previous_requests = 0
        self.tokens = 0
        self.previous_tokens = 0
        self.month_tokens = 0
        self.in_flight = 0

    def roll(self, minute: int) -> None:
        """Advance to a later minute."""
        if minute == self.minute + 1:
            self.previous_requests, self.previous_tokens = self.requests, self.tokens
        else:
            self.previous_requests = self.previous_tokens = 0
        self.requests = self.tokens = 0
        self.minute = minute


class Refusal(NamedTuple):
    """Which limit rejects a request, and for how long (seconds; infinite = the request can never fit)."""

    limit: LimitName
    wait_seconds: float
    used: float
    allowed: int
    used_requests: float  # in the sliding minute, whichever limit it is
    used_tokens: float


def judge(quota: Quota, counts: Counts, tokens: int, now: float) -> tuple[float, float] | Refusal:
    """Decide whether one more request of `tokens` fits; `counts` are those of `now`'s minute, without it.

    If so, return the requests and tokens of the sliding minute including it. If several limits are reached, return the
    one with the longest wait, which is enough for all.
    """
    requests, per_minute, concurrency, monthly = quota
    weight = 1.0 - now % WINDOW_SECONDS / WINDOW_SECONDS
    used_requests = counts.previous_requests * weight + counts.requests + 1
    used_tokens = counts.previous_tokens * weight + counts.tokens + tokens
    if (
        (requests is None or used_requests <= requests)
        and (per_minute is None or used_tokens <= per_minute)
        and (concurrency is None or counts.in_flight < concurrency)
        and (monthly is None or counts.month_tokens + tokens <= monthly)
    ):
        return used_requests, used_tokens
    return max(_refusals(quota, counts, tokens, now), key=lambda refusal: refusal.wait_seconds)


def _refusals(quota: Quota, counts: Counts, tokens: int, now: float) -> list[Refusal]:
    elapsed = now % WINDOW_SECONDS
    weight = 1.0 - elapsed / WINDOW_SECONDS
    used_requests = counts.previous_requests * weight + counts.requests
    used_tokens = counts.previous_tokens * weight + counts.tokens
    found: list[Refusal] = []

    def add(limit: LimitName, wait: float, used: float, allowed: int) -> None:
        found.append(Refusal(limit, wait, used, allowed, used_requests, used_tokens))

    if quota.requests is not None and used_requests + 1 > quota.requests:
        wait = wait_seconds(quota.requests, counts.previous_requests, counts.requests, 1, elapsed)
        add("requests", wait, used_requests, quota.requests)
    if quota.tokens is not None and used_tokens + tokens > quota.tokens:
        wait = wait_seconds(quota.tokens, counts.previous_tokens, counts.tokens, tokens, elapsed)
        add("tokens", wait, used_tokens, quota.tokens)
    if quota.concurrency is not None and counts.in_flight >= quota.concurrency:
        add("concurrency", 0.0, counts.in_flight, quota.concurrency)
    if quota.monthly_tokens is not None and counts.month_tokens + tokens > quota.monthly_tokens:
        wait = math.inf if tokens > quota.monthly_tokens else month_end(counts.month) - now
        add("monthly_tokens", wait, counts.month_tokens, quota.monthly_tokens)
    return found


def wait_seconds(limit: int, previous: int, current: int, cost: int, elapsed: float) -> float:
    """Return the seconds until `cost` fits under `limit` if nothing else is used meanwhile.

    `previous` and `current` are the counts of the previous and of this clock minute, of which `elapsed` seconds have
    passed.
    """
    if cost > limit:
        return math.inf
    room = limit - cost - current
    if room >= 0:  # it fits within this minute, once enough of the previous one has left the window
        return max(0.0, WINDOW_SECONDS * (1.0 - room / previous) - elapsed) if previous > room else 0.0
    return WINDOW_SECONDS - elapsed + WINDOW_SECONDS * (1.0 - (limit - cost) / current)


def month_of(now: float) -> int:
    """Return the calendar month (UTC) of a time as one number: year * 12 + month - 1."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    return moment.year * 12 + moment.month - 1


def month_end(month: int) -> float:
    """Return the end of a month numbered as by `month_of`, in seconds since the epoch."""
    year, index = divmod(month + 1, 12)
    return dt.datetime(year, index + 1, 1, tzinfo=dt.UTC).timestamp()
