"""Tells the ends of requests to those who count: metrics, usage and the access log.

The ends are noted at once and told in batches, twenty times a second: the work is the same, but done in one go it
costs the processor's caches a third of what it costs scattered between the requests. Who looks at the numbers calls
`flush` first, so nobody sees them late.
"""

from __future__ import annotations

import asyncio
import time

from .access_log import AccessLog
from .exchange import Exchange
from .metrics import Metrics
from .usage import UsageStore

FLUSH_SECONDS = 0.05


class Recorder:
    """Counts requests. Belongs to one event loop."""

    def __init__(self, metrics: Metrics, usage: UsageStore, access_log: AccessLog | None) -> None:
        self._metrics = metrics
        self._usage = usage
        self._access_log = access_log
        self._ended: list[Exchange] = []
        self._timer: asyncio.TimerHandle | None = None
        self.began = metrics.began  # called for every request that comes in

    def ended(self, exchange: Exchange) -> None:
        """Note a request that has ended. Called once for each request."""
        if not exchange.ended:
            exchange.ended = time.monotonic()
            exchange.ended_at = time.time()
        exchange.request.body = b""  # may be large, and nobody needs it any more
        self._ended.append(exchange)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Tell everything that has been noted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._ended = self._ended, []
        for exchange in ended:
            self._count(exchange)
        if self._access_log is not None and ended:
            self._access_log.write(ended)

    def _count(self, exchange: Exchange) -> None:
        route, tokens, first = exchange.route, exchange.tokens, exchange.first_byte
        template = route.template if route is not None else ""
        generates = route is not None and route.generates
        prompt = cached = completion = 0
        between = speed = None
        if tokens is not None and generates:
            prompt, cached, completion, _, _, speed = tokens
            if exchange.stream and first and completion > 1:
                between = (exchange.ended - first) / (completion - 1)
        self._metrics.ended(
            template,
            exchange.status,
            exchange.outcome,
            exchange.key.id if exchange.key is not None else "",
            seconds=exchange.ended - exchange.arrived,
            queued_seconds=exchange.queued_seconds if exchange.admitted else None,
            first_token_seconds=first - exchange.arrived if first and generates else None,
            inter_token_seconds=between,
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            tokens_per_second=speed,
        )
        outcome, key = exchange.outcome, exchange.key
        if outcome == "client_gone":
            self._metrics.cancelled(template, "answering" if first else "waiting")
        if key is not None and exchange.model and route is not None and route.group != "admin":  # a key used the model
            self._usage.record(
                key.id,
                exchange.model,
                prompt=prompt,
                cached=cached,
                completion=completion,
                error=outcome not in ("ok", "client_gone"),
            )
