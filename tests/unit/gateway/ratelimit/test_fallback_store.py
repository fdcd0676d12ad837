"""Limits while their shared store is away: counted by each replica on its own, and told once."""

from __future__ import annotations

import datetime as dt

import pytest

from llama_gguf.gateway.ratelimit.fallback_store import FallbackStore
from llama_gguf.gateway.ratelimit.memory_store import LocalStore
from llama_gguf.gateway.ratelimit.quota import Quota, Refusal
from llama_gguf.gateway.ratelimit.store import Charge, Store, StoreUnreachableError
from support.awaiting import finished

NOON = dt.datetime(2026, 3, 14, 12, 0, tzinfo=dt.UTC).timestamp()


async def charged(outcome: Charge | Refusal) -> Charge:
    assert isinstance(outcome, Charge)
    return outcome


class _Switch:
    """A store that can be switched off."""

    def __init__(self) -> None:
        self.inner = LocalStore()
        self.up = True
        self.asked = 0

    async def take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        self.asked += 1
        if not self.up:
            raise StoreUnreachableError("gone")
        outcome = await self.inner.take(key_id, quota, tokens, now)
        if isinstance(outcome, Charge):
            outcome.store = self
        return outcome

    async def settle(self, charge: Charge, tokens_used: int, now: float) -> None:
        if not self.up:
            raise StoreUnreachableError("gone")
        self.inner.settle(charge, tokens_used, now)

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        if not self.up:
            raise StoreUnreachableError("gone")
        await self.inner.correct(charge, tokens_used, now)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_without_its_store_each_replica_limits_on_its_own(caplog: pytest.LogCaptureFixture) -> None:
    shared, local = _Switch(), LocalStore()
    now = [0.0]
    states: list[bool] = []
    failures: list[int] = []
    store: Store = FallbackStore(
        shared,
        local,
        pause_seconds=5.0,
        clock=lambda: now[0],
        on_state=states.append,
        on_failure=lambda: failures.append(1),
    )
    quota = Quota(2, None, None, None)
    before = await charged(await store.take("alice", quota, 10, NOON))
    shared.up = False
    for expected in (Charge, Charge, Refusal):  # the local counts begin at nought, and hold
        assert isinstance(await store.take("alice", quota, 10, NOON), expected)
    assert shared.asked == 2  # once it had failed it was left alone
    await finished(store.settle(before, 5, NOON))  # is logged, and does not fail the request
    await store.correct(before, 5, NOON)
    assert (states, len(failures)) == ([False], 3)
    assert [entry.message for entry in caplog.records].count(
        "the shared store of the limits cannot be reached; each replica applies the limits on its own"
    ) == 1
    now[0] = 6.0
    assert isinstance(await store.take("bob", quota, 10, NOON), Charge)
    assert shared.asked == 3  # tried once more, still down
    shared.up = True
    now[0] = 12.0
    after = await charged(await store.take("alice", quota, 10, NOON))
    assert after.store is shared
    await finished(store.settle(after, 4, NOON))
    after.tokens = 4
    await store.correct(after, 7, NOON)
    assert shared.inner.counts_of("alice", NOON).tokens == 10 + 7
    assert states == [False, True]
    await store.aclose()
