"""Counts in memory, over minutes and months."""

from __future__ import annotations

import datetime as dt

from llama_gguf.gateway.ratelimit.memory_store import LocalStore
from llama_gguf.gateway.ratelimit.quota import Quota, Refusal
from llama_gguf.gateway.ratelimit.store import Charge

NOON = dt.datetime(2026, 3, 31, 23, 58, tzinfo=dt.UTC).timestamp()  # two minutes before a month ends
FREE = Quota(None, None, None, None)


async def charged(store: LocalStore, tokens: int, now: float, quota: Quota = FREE) -> Charge:
    charge = await store.take("alice", quota, tokens, now)
    assert isinstance(charge, Charge)
    return charge


def counts(store: LocalStore, now: float) -> tuple[int, int, int]:
    found = store.counts_of("alice", now)
    return found.tokens, found.previous_tokens, found.month_tokens


async def test_a_minute_becomes_the_one_before_and_is_then_forgotten() -> None:
    store = LocalStore()
    await charged(store, 100, NOON)
    assert counts(store, NOON + 59) == (100, 0, 100)
    assert counts(store, NOON + 60) == (0, 100, 100)
    assert counts(store, NOON + 120)[:2] == (0, 0)


async def test_what_was_used_less_is_taken_off_the_minute_it_was_charged_to() -> None:
    for later, expected in ((0, (40, 0, 40)), (60, (0, 40, 40)), (119, (0, 40, 40))):
        store = LocalStore()
        store.settle(await charged(store, 100, NOON), 40, NOON + later)
        assert counts(store, NOON + later) == expected


async def test_what_was_used_more_counts_now() -> None:
    store = LocalStore()
    store.settle(await charged(store, 100, NOON), 130, NOON + 60)
    assert counts(store, NOON + 60) == (30, 100, 130)


async def test_a_month_begins_with_nothing_and_is_not_credited_for_the_last() -> None:
    store = LocalStore(month_tokens=lambda _: 1000)
    charge = await charged(store, 100, NOON)
    assert counts(store, NOON)[2] == 1100
    april = NOON + 120
    await charged(store, 7, april)
    store.settle(charge, 40, april)
    assert counts(store, april)[2] == 7


async def test_a_refused_request_leaves_no_trace() -> None:
    store = LocalStore()
    one_at_a_time = Quota(None, None, 1, None)
    first = await charged(store, 100, NOON, one_at_a_time)
    refused = await store.take("alice", one_at_a_time, 50, NOON)
    assert isinstance(refused, Refusal)
    assert refused.limit == "concurrency"
    assert counts(store, NOON) == (100, 0, 100)
    store.settle(first, 100, NOON)
    await charged(store, 1, NOON, one_at_a_time)
