"""Charges a request for its tokens when it ends, and corrects the charge when the engine has reported its own count.

Settling must not depend on the request's own task, which can be cancelled at any time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.ratelimit.limiter import Reservation
from llama_gguf.gateway.relay.accounting import estimate_usage
from llama_gguf.gateway.relay.engine_usage import EngineUsage
from llama_gguf.gateway.tokens.counts import Tokens
from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.0


class Settlement:
    """Settles reservations. Belongs to one event loop. `tokens_per_second`: the mean speed of generation."""

    def __init__(self, engine_usage: EngineUsage, tokens_per_second: Callable[[], float]) -> None:
        self._engine_usage = engine_usage
        self._tokens_per_second = tokens_per_second
        self._running: set[asyncio.Future[None]] = set()

    def settle(self, exchange: Exchange, reservation: Reservation, cost: int) -> int | None:
        """Charge a request that has ended; return the tokens it has used, None if it used none.

        If its counts are not the engine's, an estimate of at most `cost` is charged now, and the engine is queried.
        """
        tokens = exchange.tokens
        if tokens is not None and not tokens.exact:
            unseen = exchange.unseen_seconds * self._tokens_per_second()
            tokens = exchange.tokens = estimate_usage(tokens, unseen, cost)
            if self._engine_usage.can_query():
                exchange.usage_query = self._run(self._settle_then_correct(exchange, tokens, reservation))
                return tokens.total
        used = tokens.total if tokens is not None else None
        self.charge(reservation, used or 0)
        return used

    def charge(self, reservation: Reservation, tokens_used: int) -> None:
        """Charge a known number of tokens."""
        if (settling := reservation.settle(tokens_used)) is not None:
            self._run(settling)

    async def _settle_then_correct(self, exchange: Exchange, estimate: Tokens, reservation: Reservation) -> None:
        """Settle with the estimate now, and correct the charge when the engine has reported the count."""
        if (settling := reservation.settle(estimate.total)) is not None:
            await settling
        exchange.tokens = counted = await self._engine_usage.tokens(exchange.usage_number, estimate)
        await reservation.correct(counted.total)

    def _run(self, settling: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(settling)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("could not settle a reservation", extra=fields(reason=str(error)))

    async def close(self) -> None:
        """Wait a few seconds for reservations that are still being settled; then their estimates stand."""
        if not self._running:
            return
        _, pending = await asyncio.wait(self._running, timeout=_CLOSE_SECONDS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
