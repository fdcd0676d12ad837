"""The counts of the limits in Redis or Valkey, shared by replicas.

Built on the Redis storage of the `limits` package, with our own scripts: none of that package's strategies can refund
part of a charge, or charge several limits atomically. There is a counter for each key and clock minute, so that a late
settlement still changes the minute that was charged. Requests in flight are leases in a sorted set, so that those of a
replica that crashed expire automatically. This module and its imports are loaded only if a shared store is configured.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from limits.aio.storage import RedisStorage
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from llama_gguf.errors import ConfigError
from llama_gguf.gateway.ratelimit.quota import WINDOW_SECONDS, Counts, Quota, Refusal, judge, month_of
from llama_gguf.gateway.ratelimit.store import Charge, StoreUnreachableError
from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_PREFIX = "llama-gguf"
_TIMEOUT_SECONDS = 1.0
_CONNECTIONS = 16
_MINUTE_TTL = 3 * WINDOW_SECONDS
_MONTH_TTL = 40 * 86_400
_LEASE_SECONDS = 60.0
_RENEW_SECONDS = 20.0
_NO_LIMIT = -1

# Charge one request, or nothing if a limit is reached; returns whether it fits, and the counts before. The comparisons
# are those of quota.judge, on the same numbers. Leases use the server's clock: those of the replicas can differ.
_TAKE = """
local weight, tokens, lease_seconds = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[7])
local function count(name) return tonumber(redis.call('GET', name) or 0) end
local function over(position, used)
  local limit = tonumber(ARGV[position])
  return limit >= 0 and used > limit
end
local requests, previous_requests, used = count(KEYS[1]), count(KEYS[2]), count(KEYS[3])
local previous_used, month, in_flight = count(KEYS[4]), count(KEYS[5]), 0
local leased = tonumber(ARGV[5]) >= 0
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
if leased then
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now)
  in_flight = redis.call('ZCARD', KEYS[6])
end
local fits = not (over(3, previous_requests * weight + requests + 1) or over(4, previous_used * weight + used + tokens)
  or over(5, in_flight + 1) or over(6, month + tokens))
if fits then
  redis.call('INCRBY', KEYS[1], 1)
  redis.call('EXPIRE', KEYS[1], ARGV[9])
  redis.call('INCRBY', KEYS[3], tokens)
  redis.call('EXPIRE', KEYS[3], ARGV[9])
  redis.call('INCRBY', KEYS[5], tokens)
  redis.call('EXPIRE', KEYS[5], ARGV[10])
  if leased then
    redis.call('ZADD', KEYS[6], now + lease_seconds, ARGV[8])
    redis.call('EXPIRE', KEYS[6], math.ceil(lease_seconds) + 1)
  end
end
return {fits and 1 or 0, requests, previous_requests, used, previous_used, month, in_flight}
"""
# Change the counters of a charge and end its lease.
_ADJUST = """
for position = 1, 3 do
  local change = tonumber(ARGV[position])
  if change ~= 0 then
    redis.call('INCRBY', KEYS[position], change)
    redis.call('EXPIRE', KEYS[position], position < 3 and ARGV[5] or ARGV[6])
  end
end
if ARGV[4] ~= '' then redis.call('ZREM', KEYS[4], ARGV[4]) end
return 1
"""
# Only an existing lease: one that ended during its renewal stays ended.
_RENEW = """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[2]), ARGV[1])
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]) + 1)
return 1
"""

T = TypeVar("T")
Arguments = list[str | int | float]


class SharedStore:
    """Counts in Redis or Valkey at `url`. Every call can raise StoreUnreachableError."""

    def __init__(self, url: str, password: str | None = None, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        options: dict[str, Any] = {"password": password} if password is not None else {}
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=timeout_seconds,  # for a free connection
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 1),  # replaces a stale connection, once
                driver_info=None,  # otherwise every new connection reads the driver's version from disk
                **options,
            )
        except ValueError as error:
            raise ConfigError(f"limits.store: {error}", hint="for example redis://localhost:6379/0") from error
        options = {"connection_pool": pool}
        self._storage = RedisStorage(f"async+{url}", implementation="redispy", key_prefix=_PREFIX, **options)
        self._pool = pool
        client = Redis(connection_pool=pool)
        self._take_script = client.register_script(_TAKE)
        self._adjust_script = client.register_script(_ADJUST)
        self._renew_script = client.register_script(_RENEW)
        self._leases: dict[str, str] = {}  # lease -> key id, of this process
        self._renewal: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        """Charge one request of `tokens`, if it fits. A caller that is cancelled meanwhile is not charged."""
        work = asyncio.ensure_future(self._take(key_id, quota, tokens, now))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._run_in_background(self._refund(work))
            raise

    async def settle(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Replace the charge with the actual use, and end the request."""
        difference = tokens_used - charge.tokens
        charge.tokens = tokens_used
        minute = int(now // WINDOW_SECONDS) if difference > 0 else charge.minute
        await self._adjust(charge, minute, 0, difference, difference)

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Correct a settled charge. It makes no difference that the request has already ended."""
        await self.settle(charge, tokens_used, now)

    async def aclose(self) -> None:
        """Wait for background tasks and close the connections."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._background:
            await asyncio.wait(self._background, timeout=2 * _TIMEOUT_SECONDS)
        await self._pool.aclose()

    async def _take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        minute, month = int(now // WINDOW_SECONDS), month_of(now)
        weight = 1.0 - now % WINDOW_SECONDS / WINDOW_SECONDS
        lease = secrets.token_hex(8) if quota.concurrency is not None else ""
        names = [
            self._minute(key_id, "requests", minute),
            self._minute(key_id, "requests", minute - 1),
            self._minute(key_id, "tokens", minute),
            self._minute(key_id, "tokens", minute - 1),
            self._month(key_id, month),
            self._in_flight(key_id),
        ]
        limits = [_NO_LIMIT if limit is None else limit for limit in quota]
        arguments: Arguments = [repr(weight), tokens, *limits, _LEASE_SECONDS, lease, _MINUTE_TTL, _MONTH_TTL]
        fits, *found = await _call(self._take_script(keys=names, args=arguments))
        counts = Counts(minute, month)
        counts.requests, counts.previous_requests, counts.tokens, counts.previous_tokens = map(int, found[:4])
        counts.month_tokens, counts.in_flight = map(int, found[4:])
        if not fits:
            refusal = judge(quota, counts, tokens, now)
            assert isinstance(refusal, Refusal)  # noqa: S101 - the script compares the same numbers
            return refusal
        if lease:
            self._lease(lease, key_id)
        used_requests = counts.previous_requests * weight + counts.requests + 1
        used_tokens = counts.previous_tokens * weight + counts.tokens + tokens
        return Charge(self, key_id, tokens, now, minute, month, used_requests, used_tokens, lease)

    async def _adjust(self, charge: Charge, minute: int, requests: int, tokens: int, month_tokens: int) -> None:
        self._leases.pop(charge.lease, None)
        if not (requests or tokens or month_tokens or charge.lease):
            return
        names = [
            self._minute(charge.key_id, "requests", minute),
            self._minute(charge.key_id, "tokens", minute),
            self._month(charge.key_id, charge.month),
            self._in_flight(charge.key_id),
        ]
        arguments: Arguments = [requests, tokens, month_tokens, charge.lease, _MINUTE_TTL, _MONTH_TTL]
        await _call(self._adjust_script(keys=names, args=arguments))

    async def _refund(self, work: asyncio.Future[Charge | Refusal]) -> None:
        try:
            charge = await work
            if isinstance(charge, Charge):
                await self._adjust(charge, charge.minute, -1, -charge.tokens, -charge.tokens)
        except StoreUnreachableError as error:
            _log.warning("a charge could not be refunded", extra=fields(reason=str(error)))

    def _lease(self, lease: str, key_id: str) -> None:
        self._leases[lease] = key_id
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(), name="limit-leases")

    async def _renew(self) -> None:
        while self._leases:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                for lease, key_id in list(self._leases.items()):
                    await _call(self._renew_script(keys=[self._in_flight(key_id)], args=[lease, _LEASE_SECONDS]))
            except StoreUnreachableError as error:
                _log.debug("leases are not renewed", extra=fields(reason=str(error)))  # FallbackStore logs the outage

    def _run_in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # The braces are a hash tag: all counters of a key are on one node of a cluster.
    def _minute(self, key_id: str, what: str, minute: int) -> str:
        return self._storage.bridge.prefixed_key(f"{{{key_id}}}/{what}/{minute}")

    def _month(self, key_id: str, month: int) -> str:
        return self._storage.bridge.prefixed_key(f"{{{key_id}}}/month/{month // 12}-{month % 12 + 1:02d}")

    def _in_flight(self, key_id: str) -> str:
        return self._storage.bridge.prefixed_key(f"{{{key_id}}}/in-flight")


async def _call(call: Awaitable[T]) -> T:
    try:
        return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnreachableError(f"{type(error).__name__}: {error}") from error
