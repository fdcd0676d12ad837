"""The arithmetic of the limits: what fits, and how long until it does."""

from __future__ import annotations

import datetime as dt
import math

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given

from llama_gguf.gateway.ratelimit.quota import (
    WINDOW_SECONDS,
    Counts,
    Quota,
    Refusal,
    judge,
    month_end,
    month_of,
    quota_of,
    wait_seconds,
)
from llama_gguf.keys.record import KeyRecord
from llama_gguf.settings.sections.limits import Limits

START = dt.datetime(2026, 3, 14, 12, 0, tzinfo=dt.UTC).timestamp()
COUNT = st.integers(0, 5000)


def counts(
    *, requests: tuple[int, int] = (0, 0), tokens: tuple[int, int] = (0, 0), month: int = 0, in_flight: int = 0
) -> Counts:
    found = Counts(int(START // WINDOW_SECONDS), month_of(START))
    found.previous_requests, found.requests = requests
    found.previous_tokens, found.tokens = tokens
    found.month_tokens, found.in_flight = month, in_flight
    return found


def record(**limits: int) -> KeyRecord:
    return KeyRecord("k", "0" * 64, "sk-", dt.datetime.now(dt.UTC), **limits)  # type: ignore[arg-type]


def test_a_keys_own_limits_win_over_the_defaults() -> None:
    defaults = Limits(requests_per_minute=10, tokens_per_minute=20, concurrency=3, monthly_tokens=None)
    assert quota_of(record(), defaults) == Quota(10, 20, 3, None)
    own = record(requests_per_minute=1, tokens_per_minute=2, concurrency=9, monthly_tokens=4)
    assert quota_of(own, defaults) == Quota(1, 2, 9, 4)


def test_no_limit_never_refuses() -> None:
    full = counts(requests=(10**9, 10**9), tokens=(10**9, 10**9), month=10**9, in_flight=10**9)
    assert judge(Quota(None, None, None, None), full, 10**9, START) == (2e9 + 1, 3e9)


@pytest.mark.parametrize(
    ("quota", "used", "limit", "wait"),
    [
        (Quota(10, None, None, None), counts(requests=(0, 10)), "requests", 60 + 6),
        (Quota(10, None, None, None), counts(requests=(10, 0)), "requests", 6),
        (Quota(None, 1000, None, None), counts(tokens=(0, 950)), "tokens", 60 + 60 * (1 - 900 / 950)),
        (Quota(None, 1000, None, None), counts(tokens=(1000, 0)), "tokens", 6),
        (Quota(None, 99, None, None), counts(), "tokens", math.inf),
        (Quota(None, None, 2, None), counts(in_flight=2), "concurrency", 0),
        (Quota(None, None, None, 5000), counts(month=4901), "monthly_tokens", 17.5 * 86_400),
        (Quota(None, None, None, 99), counts(), "monthly_tokens", math.inf),
        # Several at once: the one that lasts longest, or its Retry-After would be a lie.
        (Quota(10, 1000, 1, None), counts(requests=(10, 0), tokens=(0, 950), in_flight=1), "tokens", 63.158),
    ],
)
def test_refusals(quota: Quota, used: Counts, limit: str, wait: float) -> None:
    refusal = judge(quota, used, 100, START)
    assert isinstance(refusal, Refusal)
    assert refusal.limit == limit
    assert refusal.wait_seconds == pytest.approx(wait, abs=0.01)


def test_the_last_minute_slides_out_evenly() -> None:
    used = counts(requests=(10, 0))
    quota = Quota(10, None, None, None)
    assert isinstance(judge(quota, used, 1, START + 5.9), Refusal)
    assert tuple(judge(quota, used, 1, START + 6.1)) == pytest.approx((10 - 6.1 / 6 + 1, 1))


@given(limit=st.integers(1, 5000), previous=COUNT, current=COUNT, cost=st.integers(1, 5000), elapsed=st.floats(0, 59.9))
def test_the_wait_is_enough_and_not_too_long(
    limit: int, previous: int, current: int, cost: int, elapsed: float
) -> None:
    quota = Quota(None, limit, None, None)
    now = START + elapsed
    if not isinstance(judge(quota, counts(tokens=(previous, current)), cost, now), Refusal):
        return
    wait = wait_seconds(limit, previous, current, cost, elapsed)
    if cost > limit:
        assert wait == math.inf
        return
    assert 0 < wait <= 2 * WINDOW_SECONDS

    def fits(when: float) -> bool:
        verdict = judge(quota, _after(previous, current, elapsed, when), cost, now + when)
        return not isinstance(verdict, Refusal)

    assert fits(wait + 0.001)
    assume(wait > 0.01)
    assert not fits(wait - 0.01)


def _after(previous: int, current: int, elapsed: float, wait: float) -> Counts:
    """Return the counts `wait` seconds on, if nothing more is used."""
    found = counts(tokens=(previous, current))
    minutes = int((elapsed + wait) // WINDOW_SECONDS)
    if minutes:
        found.roll(found.minute + minutes)
    return found


def test_rolling_on() -> None:
    found = counts(requests=(1, 2), tokens=(3, 4))
    found.roll(found.minute + 1)
    assert (found.previous_requests, found.requests, found.previous_tokens, found.tokens) == (2, 0, 4, 0)
    found.requests = 5
    found.roll(found.minute + 2)
    assert (found.previous_requests, found.requests) == (0, 0)


@pytest.mark.parametrize(("year", "month"), [(2026, 1), (2026, 12), (2028, 2)])
def test_months(year: int, month: int) -> None:
    first = dt.datetime(year, month, 1, tzinfo=dt.UTC)
    number = month_of(first.timestamp())
    end = dt.datetime.fromtimestamp(month_end(number), dt.UTC)
    assert (end.day, end.hour) == (1, 0)
    assert month_of(end.timestamp() - 0.001) == number
    assert month_of(end.timestamp()) == number + 1
