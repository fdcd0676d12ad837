"""Reserving, settling and refusing, with counts in memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.ratelimit.limiter import RateLimiter, Reservation, rate_headers
from llama_gguf.gateway.ratelimit.memory_store import LocalStore
from llama_gguf.gateway.ratelimit.quota import Quota, Refusal
from llama_gguf.keys.record import KeyRecord
from llama_gguf.settings.sections.limits import Limits
from support.awaiting import finished

NOON = dt.datetime(2026, 3, 14, 12, 0, tzinfo=dt.UTC).timestamp()


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def record(key_id: str = "alice", **own: int) -> KeyRecord:
    return KeyRecord(key_id, "0" * 64, "sk-", dt.datetime.now(dt.UTC), **own)  # type: ignore[arg-type]


def limiter(
    clock: Clock,
    *,
    store: LocalStore | None = None,
    on_refused: Callable[[str, str], None] = lambda _limit, _key: None,
    **limits: int | None,
) -> RateLimiter:
    values: dict[str, int | None] = {"requests_per_minute": None, **limits}
    return RateLimiter(Limits.model_validate(values), store or LocalStore(), clock=clock, on_refused=on_refused)


async def test_requests_a_minute() -> None:
    clock = Clock()
    refused: list[tuple[str, str]] = []
    rates = limiter(clock, requests_per_minute=3, on_refused=lambda limit, key: refused.append((limit, key)))
    for _ in range(3):
        await finished((await rates.reserve(record(), 0)).settle(0))
    with pytest.raises(GatewayError, match="3 requests per minute") as caught:
        await rates.reserve(record(), 0)
    error = caught.value
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert dict(error.headers)["x-ratelimit-remaining-requests"] == "0"
    assert refused == [("requests", "alice")]
    # The next minute must let a third of this one slide out, after 80 s; OpenAI's clients ignore more than 60.
    assert error.retry_after == 60
    assert "try again in 60 s" in error.message
    clock.now += 79
    with pytest.raises(GatewayError):
        await rates.reserve(record(), 0)
    clock.now += 1
    await rates.reserve(record(), 0)


async def test_keys_do_not_share_their_limits() -> None:
    rates = limiter(Clock(), requests_per_minute=1)
    await rates.reserve(record("alice"), 0)
    await rates.reserve(record("bob"), 0)
    with pytest.raises(GatewayError):
        await rates.reserve(record("alice"), 0)


async def test_a_reload_changes_limits_and_keeps_counts() -> None:
    rates = limiter(Clock(), requests_per_minute=5)
    for _ in range(3):
        await rates.reserve(record(), 0)
    with pytest.raises(GatewayError):
        await rates.reserve(record(requests_per_minute=3), 0)
    await rates.reserve(record(requests_per_minute=4), 0)


def shown(reservation: Reservation) -> dict[str, str]:
    """Return the headers that a response carries for a reservation."""
    return dict(line.split(": ", 1) for line in reservation.lines.splitlines())


@pytest.mark.parametrize(("requests", "tokens"), [(5, 900), (5, None), (None, 900), (None, None)])
async def test_headers_of_a_response_are_those_of_a_refusal(requests: int | None, tokens: int | None) -> None:
    clock = Clock(NOON + 15)
    rates = limiter(clock, requests_per_minute=requests, tokens_per_minute=tokens)
    reservation = await rates.reserve(record(), 30)
    assert shown(reservation) == dict(rate_headers(Quota(requests, tokens, None, None), 1, 30, clock.now))


async def test_headers() -> None:
    clock = Clock(NOON + 15)
    rates = limiter(clock, requests_per_minute=10, tokens_per_minute=1000)
    reservation = await rates.reserve(record(), 300)
    assert shown(reservation) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "105s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "700",
        "x-ratelimit-reset-tokens": "105s",
    }
    clock.now = NOON + 90
    later = shown(await rates.reserve(record(), 100))
    assert later["x-ratelimit-remaining-tokens"] == "750"  # half of the 300 still count
    unlimited = await limiter(clock).reserve(record(), 10)
    assert unlimited.lines == ""


async def test_tokens_are_settled_to_what_was_used() -> None:
    clock = Clock()
    rates = limiter(clock, tokens_per_minute=1000)
    store = LocalStore()
    rates = limiter(clock, store=store, tokens_per_minute=1000)
    first = await rates.reserve(record(), 900)
    assert store.counts_of("alice", clock.now).tokens == 900
    with pytest.raises(GatewayError, match="900 of them are used") as caught:
        await rates.reserve(record(), 200)
    assert caught.value.retry_after is not None
    await finished(first.settle(100))
    await finished(first.settle(0))  # a second time changes nothing
    assert store.counts_of("alice", clock.now).tokens == 100
    second = await rates.reserve(record(), 900)
    await finished(second.settle(950))  # more than the estimate: charged all the same
    with pytest.raises(GatewayError):
        await rates.reserve(record(), 1)


async def test_a_refused_request_is_charged_nothing() -> None:
    rates = limiter(Clock(), requests_per_minute=2, tokens_per_minute=100, concurrency=5)
    for _ in range(5):
        with pytest.raises(GatewayError):
            await rates.reserve(record(), 101)
    await rates.reserve(record(), 50)
    await rates.reserve(record(), 50)


async def test_what_can_never_fit_is_not_worth_a_retry() -> None:
    rates = limiter(Clock(), tokens_per_minute=100)
    with pytest.raises(GatewayError, match="lower max_tokens") as caught:
        await rates.reserve(record(), 101)
    assert caught.value.retry_after is None
    assert caught.value.final


async def test_concurrency() -> None:
    rates = limiter(Clock(), concurrency=2)
    first, _second = await rates.reserve(record(), 0), await rates.reserve(record(), 0)
    with pytest.raises(GatewayError, match="2 concurrent requests") as caught:
        await rates.reserve(record(), 0)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    await finished(first.settle(0))
    await finished(first.settle(0))
    await rates.reserve(record(), 0)
    with pytest.raises(GatewayError):
        await rates.reserve(record(), 0)


async def test_monthly_budget() -> None:
    clock = Clock(dt.datetime(2026, 3, 31, 23, 0, tzinfo=dt.UTC).timestamp())
    rates = limiter(clock, store=LocalStore(month_tokens={"alice": 900}.__getitem__), monthly_tokens=1000)
    await finished((await rates.reserve(record(), 100)).settle(50))  # 950 with those from before the start
    with pytest.raises(GatewayError, match="50 of them remain") as caught:
        await rates.reserve(record(), 51)
    error = caught.value
    assert (error.status, error.code, error.type) == (429, "insufficient_quota", "insufficient_quota")
    assert error.retry_after == 3600
    late = await rates.reserve(record(), 50)
    clock.now += 3600
    fresh = await rates.reserve(record(), 1000)
    await finished(late.settle(40))  # belongs to March: April's budget does not change
    with pytest.raises(GatewayError):
        await rates.reserve(record(), 1)
    await finished(fresh.settle(999))
    await rates.reserve(record(), 1)
    with pytest.raises(GatewayError, match="1000 per month"):
        await rates.reserve(record(), 1001)


async def test_a_late_settlement_goes_to_the_minute_it_was_charged_to() -> None:
    store = LocalStore()
    clock = Clock()
    rates = limiter(clock, store=store, tokens_per_minute=10_000)
    early, long_one, longer = [await rates.reserve(record(), 1000) for _ in range(3)]
    await finished(early.settle(100))
    clock.now += 60
    await finished(long_one.settle(100))
    counts = store.counts_of("alice", clock.now)
    assert (counts.previous_tokens, counts.tokens) == (100 + 100 + 1000, 0)
    clock.now += 60
    await finished(longer.settle(0))  # its minute has slid out: nothing to give back
    counts = store.counts_of("alice", clock.now)
    assert (counts.previous_tokens, counts.tokens) == (0, 0)
    overlong = await rates.reserve(record(), 10)
    clock.now += 600
    await finished(overlong.settle(500))  # what was used beyond the estimate was used now
    assert store.counts_of("alice", clock.now).tokens == 490


async def test_a_clock_that_steps_back_does_not_lose_counts() -> None:
    store = LocalStore()
    clock = Clock(NOON + 61)
    rates = limiter(clock, store=store, requests_per_minute=2)
    await rates.reserve(record(), 0)
    clock.now -= 5
    reservation = await rates.reserve(record(), 10)
    await finished(reservation.settle(3))
    assert store.counts_of("alice", clock.now).tokens == 3
    with pytest.raises(GatewayError):
        await rates.reserve(record(), 0)
    clock.now -= 3600  # set right by an hour: nobody is locked out until it is that late again
    await rates.reserve(record(), 0)


@settings(max_examples=150, deadline=None)
@given(
    jobs=st.lists(
        st.tuples(
            st.sampled_from(["alice", "bob"]),
            st.integers(0, 500),  # the estimate
            st.integers(0, 700),  # what the engine counted
            st.integers(0, 6),  # turns of the loop until it is aborted, if it is still there
            st.integers(0, 40),  # seconds that pass before it begins
        ),
        max_size=30,
    )
)
def test_charged_equals_reported_whatever_is_aborted(jobs: list[tuple[str, int, int, int, int]]) -> None:
    clock = Clock()
    store = LocalStore()
    rates = limiter(clock, store=store, tokens_per_minute=3000, concurrency=4, monthly_tokens=100_000)
    reported = {"alice": 0, "bob": 0}

    async def request(key_id: str, estimate: int, used: int) -> None:
        reservation = await rates.reserve(record(key_id), estimate)
        counted = 0
        try:
            for part in range(5):  # the engine's count grows as tokens come
                counted = used * part // 4
                await asyncio.sleep(0)
        finally:
            reported[key_id] += counted
            await finished(reservation.settle(counted))

    async def program() -> None:
        tasks = []
        for key_id, estimate, used, turns, pause in jobs:
            clock.now += pause
            task = asyncio.create_task(request(key_id, estimate, used))
            tasks.append(task)
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns < 6:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(program())
    for key_id, tokens in reported.items():
        counts = store.counts_of(key_id, clock.now)
        assert counts.month_tokens == tokens
        assert counts.in_flight == 0
        assert counts.tokens >= 0
        assert counts.previous_tokens >= 0


@settings(max_examples=60, deadline=None)
@given(
    hits=st.lists(st.tuples(st.floats(0, 50), st.integers(1, 40)), min_size=1, max_size=40), limit=st.integers(1, 60)
)
def test_the_same_answers_as_the_limits_package(hits: list[tuple[float, int]], limit: int) -> None:
    """Without settling, ours is the sliding-window counter of the `limits` package."""
    clock = Clock()
    ours = LocalStore()
    with mock.patch.object(time, "time", clock):
        storage = MemoryStorage()
        storage.timer.cancel()
        storage._MemoryStorage__schedule_expiry = lambda: None  # type: ignore[attr-defined] # no threads here
        theirs = SlidingWindowCounterRateLimiter(storage)
        item = RateLimitItemPerMinute(limit)
        for pause, cost in hits:
            clock.now += pause
            taken = asyncio.run(ours.take("k", Quota(None, limit, None, None), cost, clock.now))
            exact = ours.counts_of("k", clock.now)
            sliding = exact.previous_tokens * (1 - clock.now % 60 / 60)
            if isinstance(taken, Refusal) and sliding % 1 and exact.tokens + int(sliding) + cost <= limit:
                continue  # theirs rounds the weighted count down and may let one more token in
            assert theirs.hit(item, "k", cost=cost) == (not isinstance(taken, Refusal))


async def test_closing() -> None:
    await limiter(Clock()).aclose()


async def test_a_settled_charge_can_be_corrected_and_holds_no_place_meanwhile() -> None:
    clock = Clock()
    store = LocalStore()
    rates = limiter(clock, store=store, tokens_per_minute=1000, concurrency=1)
    reservation = await rates.reserve(record(), 500)
    await finished(reservation.settle(40))
    await reservation.correct(60)
    assert store.counts_of("alice", clock.now).tokens == 60
    await reservation.correct(60)
    second = await rates.reserve(record(), 100)
    await reservation.correct(10)
    counts = store.counts_of("alice", clock.now)
    assert (counts.tokens, counts.month_tokens, counts.in_flight) == (110, 110, 1)
    await finished(second.settle(0))


def test_with_counts_in_memory_nothing_waits() -> None:
    clock = Clock()
    store = LocalStore()
    rates = limiter(clock, store=store, requests_per_minute=2, tokens_per_minute=1000)
    reservation = at_once(rates.reserve(record(), 500))
    assert reservation.settle(40) is None
    assert reservation.settle(70) is None  # a second time changes nothing
    assert store.counts_of("alice", clock.now).tokens == 40
    first = reservation.lines
    clock.now += 1
    later = at_once(rates.reserve(record(), 0))
    assert (first.count(": 120s"), later.lines.count(": 119s")) == (2, 2)
    with pytest.raises(GatewayError, match="2 requests per minute"):
        at_once(rates.reserve(record(), 0))


def at_once(reserving: Coroutine[Any, Any, Reservation]) -> Reservation:
    """Return what a coroutine that never waits returns."""
    try:
        reserving.send(None)
    except StopIteration as end:
        found: Reservation = end.value
        return found
    raise AssertionError("it waited")
