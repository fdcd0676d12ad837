"""Keeps limits working while their shared store cannot be reached."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable

from llama_gguf.gateway.ratelimit.quota import Quota, Refusal
from llama_gguf.gateway.ratelimit.store import Charge, Store, StoreUnreachableError
from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0


class FallbackStore:
    """The shared store, and counts in memory while it cannot be reached: limits then apply to each replica separately.

    To reject all requests would turn the store's outage into one of the service; to accept all would remove the limits,
    possibly during an attack. After a failure the shared store is not used for `pause_seconds`. Charges are settled in
    the store that made them; if that fails, it is logged, and the estimate stays charged.
    """

    def __init__(
        self,
        shared: Store,
        local: Store,
        *,
        pause_seconds: float = _PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        on_state: Callable[[bool], None] = lambda _up: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._shared = shared
        self._local = local
        self._pause = pause_seconds
        self._clock = clock
        self._on_state = on_state
        self._on_failure = on_failure
        self._retry_at = -math.inf
        self._up = True

    async def take(self, key_id: str, quota: Quota, tokens: int, now: float) -> Charge | Refusal:
        """Charge one request of `tokens`, if it fits."""
        if self._clock() >= self._retry_at:
            if not self._up:
                self._retry_at = self._clock() + self._pause  # one request probes, the others do not wait for it
            try:
                outcome = await self._shared.take(key_id, quota, tokens, now)
            except StoreUnreachableError as error:
                self._failed(error)
            else:
                self._succeeded()
                return outcome
        return await self._local.take(key_id, quota, tokens, now)

    def settle(self, charge: Charge, tokens_used: int, now: float) -> Awaitable[None] | None:
        """Settle a charge in the store that made it."""
        settling = charge.store.settle(charge, tokens_used, now)
        return None if settling is None else self._guarded(settling)

    async def correct(self, charge: Charge, tokens_used: int, now: float) -> None:
        """Change a settled charge of either store."""
        await self._guarded(charge.store.correct(charge, tokens_used, now))

    async def _guarded(self, call: Awaitable[None]) -> None:
        try:
            await call
        except StoreUnreachableError as error:
            self._failed(error)

    async def aclose(self) -> None:
        """Close both stores."""
        await self._shared.aclose()
        await self._local.aclose()

    def _failed(self, error: StoreUnreachableError) -> None:
        self._retry_at = self._clock() + self._pause
        self._on_failure()
        if self._up:
            self._up = False
            self._on_state(False)
            _log.error(
                "the shared store of the limits cannot be reached; each replica applies the limits on its own",
                extra=fields(reason=str(error), setting="limits.store"),
            )

    def _succeeded(self) -> None:
        self._retry_at = -math.inf
        if not self._up:
            self._up = True
            self._on_state(True)
            _log.info("the shared store of the limits can be reached again")
