"""Counts shared by replicas, on a real redis-server; and the fallback while it cannot be reached."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from llama_gguf.api_errors import GatewayError
from llama_gguf.errors import ConfigError
from llama_gguf.gateway.ratelimit import redis_store
from llama_gguf.gateway.ratelimit.factory import open_store
from llama_gguf.gateway.ratelimit.limiter import RateLimiter
from llama_gguf.gateway.ratelimit.memory_store import LocalStore
from llama_gguf.gateway.ratelimit.quota import Quota, Refusal, month_of
from llama_gguf.gateway.ratelimit.redis_store import SharedStore
from llama_gguf.gateway.ratelimit.store import Charge, StoreUnreachableError
from llama_gguf.keys.record import KeyRecord
from llama_gguf.settings.sections.limits import Limits
from support.awaiting import finished
from support.patience import PATIENCE

PASSWORD = "correct-horse"
NOON = dt.datetime(2026, 3, 14, 12, 0, tzinfo=dt.UTC).timestamp()
UNLIMITED = Quota(None, None, None, None)
IN_FLIGHT = "llama-gguf:{alice}/in-flight"
ROOMY = Quota(10**6, 10**6, None, 10**9)


@dataclass
class Server:
    """A redis-server of our own on a loopback port."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def redis_server(directory: Path) -> Iterator[Server]:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is missing: apt-get install redis-server")
        pytest.skip("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", "", "--dir", "."]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log, cwd=directory)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)
        yield Server(port, process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    connection = Redis.from_url(server.url, password=PASSWORD)
    await connection.flushall()
    yield connection
    await connection.aclose()


@pytest.fixture
async def store(server: Server, client: Redis) -> AsyncIterator[SharedStore]:
    shared = SharedStore(server.url, PASSWORD)
    yield shared
    await shared.aclose()


async def charged(outcome: Charge | Refusal) -> Charge:
    assert isinstance(outcome, Charge)
    return outcome


async def count(client: Redis, name: str) -> int:
    return int(await client.get(f"llama-gguf:{name}") or 0)


def record(key_id: str = "alice") -> KeyRecord:
    return KeyRecord(key_id, "0" * 64, "sk-", dt.datetime.now(dt.UTC))


async def test_replicas_share_their_counts(server: Server, store: SharedStore) -> None:
    other = SharedStore(server.url, PASSWORD)
    quota = Quota(3, None, None, None)
    for replica in (store, other, store):
        assert isinstance(await replica.take("alice", quota, 10, NOON), Charge)
    refusal = await other.take("alice", quota, 10, NOON)
    assert isinstance(refusal, Refusal)
    assert refusal.limit == "requests"
    assert isinstance(await other.take("bob", quota, 10, NOON), Charge)
    await other.aclose()


async def test_it_answers_as_the_memory_store_does(store: SharedStore) -> None:
    quota = Quota(20, 1000, None, 2500)
    local = LocalStore()
    now = NOON
    for step in range(60):
        now += step % 7
        cost = (step * 37) % 190
        ours, theirs = await local.take("alice", quota, cost, now), await store.take("alice", quota, cost, now)
        assert isinstance(ours, Charge) == isinstance(theirs, Charge), step
        if isinstance(ours, Refusal):
            assert ours == theirs
        elif isinstance(theirs, Charge):
            assert (ours.used_requests, ours.used_tokens) == (theirs.used_requests, theirs.used_tokens)
            local.settle(ours, cost // 2, now + 1)
            await finished(store.settle(theirs, cost // 2, now + 1))


async def test_a_refused_request_is_charged_nothing(store: SharedStore, client: Redis) -> None:
    minute = int(NOON // 60)
    assert isinstance(await store.take("alice", Quota(9, 100, 1, 1000), 101, NOON), Refusal)
    assert await count(client, f"{{alice}}/tokens/{minute}") == 0
    assert await count(client, f"{{alice}}/requests/{minute}") == 0
    assert await count(client, "{alice}/month/2026-03") == 0
    assert await client.zcard(IN_FLIGHT) == 0


async def test_settling_finds_the_minute_and_the_month(store: SharedStore, client: Redis) -> None:
    minute = int(NOON // 60)
    early = await charged(await store.take("alice", ROOMY, 1000, NOON))
    late = await charged(await store.take("alice", ROOMY, 1000, NOON))
    over = await charged(await store.take("alice", ROOMY, 10, NOON))
    exact = await charged(await store.take("alice", ROOMY, 7, NOON))
    await finished(store.settle(early, 100, NOON + 30))
    await finished(store.settle(late, 200, NOON + 90))
    await finished(store.settle(over, 60, NOON + 300))
    await finished(store.settle(exact, 7, NOON + 300))
    assert await count(client, f"{{alice}}/tokens/{minute}") == 100 + 200 + 10 + 7
    assert await count(client, f"{{alice}}/tokens/{minute + 5}") == 50
    assert await count(client, "{alice}/month/2026-03") == 100 + 200 + 60 + 7
    early.tokens = 100  # as its reservation notes; then more becomes known
    await store.correct(early, 70, NOON + 400)
    assert await count(client, f"{{alice}}/tokens/{minute}") == 70 + 200 + 10 + 7
    assert await count(client, "{alice}/month/2026-03") == 70 + 200 + 60 + 7
    assert 120 < await client.ttl(f"llama-gguf:{{alice}}/tokens/{minute}") <= 180
    assert await client.ttl("llama-gguf:{alice}/month/2026-03") > 31 * 86_400


async def test_concurrency_is_shared_and_given_back(server: Server, store: SharedStore) -> None:
    other = SharedStore(server.url, PASSWORD)
    quota = Quota(None, None, 2, None)
    first = await charged(await store.take("alice", quota, 0, NOON))
    await charged(await other.take("alice", quota, 0, NOON))
    refusal = await store.take("alice", quota, 0, NOON)
    assert isinstance(refusal, Refusal)
    assert refusal.limit == "concurrency"
    await finished(store.settle(first, 0, NOON))
    assert isinstance(await other.take("alice", quota, 0, NOON), Charge)
    await other.aclose()


async def test_a_dead_replicas_requests_run_out_and_a_living_ones_do_not(
    server: Server, store: SharedStore, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "_LEASE_SECONDS", 0.4)
    monkeypatch.setattr(redis_store, "_RENEW_SECONDS", 0.1)
    quota = Quota(None, None, 2, None)
    dead = SharedStore(server.url, PASSWORD)
    await charged(await dead.take("alice", quota, 0, NOON))
    await dead.aclose()  # nobody renews its lease, nobody gives it back
    living = await charged(await store.take("alice", quota, 0, NOON))
    assert isinstance(await store.take("alice", quota, 0, NOON), Refusal)
    await asyncio.sleep(1.0)
    assert await client.zcard(IN_FLIGHT) == 2  # the dead one's is cleared when somebody asks
    next_one = await charged(await store.take("alice", quota, 0, NOON))
    assert isinstance(await store.take("alice", quota, 0, NOON), Refusal)
    await finished(store.settle(living, 0, NOON))
    await store._renew_script(keys=[IN_FLIGHT], args=[living.lease, 60.0])  # one that was on its way
    assert await client.zcard(IN_FLIGHT) == 1
    await finished(store.settle(next_one, 0, NOON))
    assert await client.zcard(IN_FLIGHT) == 0


async def test_charged_equals_reported_under_random_hang_ups(store: SharedStore, client: Redis) -> None:
    limits = Limits(requests_per_minute=None, tokens_per_minute=100_000, concurrency=1000, monthly_tokens=10_000_000)
    rates = RateLimiter(limits, store, clock=lambda: NOON)
    reported = answered = 0
    settling: list[asyncio.Task[None]] = []

    async def request(number: int) -> None:
        nonlocal reported, answered
        reservation = await rates.reserve(record(), 100 + number)
        used = 0
        try:
            for _ in range(number % 5):
                used += 13
                await asyncio.sleep(0.001)
            answered += 1
        finally:
            reported += used
            settling.append(asyncio.create_task(finished(reservation.settle(used))))

    for batch in range(20):
        tasks = [asyncio.create_task(request(batch * 6 + index)) for index in range(6)]
        for index, task in enumerate(tasks):
            # From before the first byte has gone to the store to long after the answer.
            asyncio.get_running_loop().call_later((batch * index * 7) % 41 * 0.0015, task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await asyncio.gather(*settling)
    assert 10 < answered < 110
    assert len(settling) > answered  # some were cut in the middle, others before they were charged
    assert len(settling) < 120
    await store.aclose()  # waits for what hang-ups left to be taken back
    month = month_of(NOON)
    assert await count(client, f"{{alice}}/month/{month // 12}-{month % 12 + 1:02d}") == reported
    assert await count(client, f"{{alice}}/tokens/{int(NOON // 60)}") == reported
    assert await client.zcard(IN_FLIGHT) == 0


async def test_an_address_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"limits\.store"):
        SharedStore("nonsense://x")


async def test_a_wrong_password_is_the_same_as_no_store(server: Server) -> None:
    wrong = SharedStore(server.url, "wrong")
    with pytest.raises(StoreUnreachableError, match="Authentication"):
        await wrong.take("alice", ROOMY, 1, NOON)
    await wrong.aclose()


@pytest.mark.slow
async def test_an_outage_of_a_real_server_is_short_for_callers(own_server: Server) -> None:
    states: list[bool] = []
    limits = Limits(requests_per_minute=100, store=own_server.url, store_password_env="STORE_PASSWORD")
    store = open_store(limits, PASSWORD, on_state=states.append)
    rates = RateLimiter(limits, store)
    await finished((await rates.reserve(record(), 5)).settle(5))
    own_server.process.send_signal(signal.SIGSTOP)  # it keeps its connections and answers nothing
    began = time.monotonic()
    held = await rates.reserve(record(), 5)
    waited = time.monotonic() - began
    assert waited < 3.0 * PATIENCE
    began = time.monotonic()
    for _ in range(50):
        await finished((await rates.reserve(record(), 5)).settle(5))
    assert time.monotonic() - began < 0.5 * PATIENCE  # the others do not wait for it
    await finished(held.settle(5))
    assert states == [False]
    own_server.process.send_signal(signal.SIGCONT)
    await store.aclose()


async def test_what_runs_in_the_background_survives_an_outage(
    own_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_store, "_RENEW_SECONDS", 0.05)
    caplog.set_level("DEBUG")
    store = SharedStore(own_server.url, PASSWORD, timeout_seconds=0.2)
    await charged(await store.take("alice", Quota(None, None, 5, None), 0, NOON))
    own_server.process.send_signal(signal.SIGSTOP)
    asking = asyncio.create_task(store.take("alice", ROOMY, 10, NOON))
    await asyncio.sleep(0.05)
    asking.cancel()  # whether it was charged is not known, and it cannot be taken back
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0.8)
    messages = {entry.message for entry in caplog.records}
    assert {"leases are not renewed", "a charge could not be refunded"} <= messages
    own_server.process.send_signal(signal.SIGCONT)
    await store.aclose()


async def test_a_budget_is_refused_across_replicas(server: Server, store: SharedStore) -> None:
    limits = Limits(requests_per_minute=None, monthly_tokens=100)
    first, second = RateLimiter(limits, store), RateLimiter(limits, store)
    await finished((await first.reserve(record(), 90)).settle(80))
    with pytest.raises(GatewayError, match="20 of them remain"):
        await second.reserve(record(), 21)
    await second.reserve(record(), 20)
