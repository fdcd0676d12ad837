"""Tells every request's beginning and end to those who count: metrics, usage and the access log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from .exchange import Exchange
from .metrics import Metrics
from .usage import UsageStore


class Listener(Protocol):
    """One who counts."""

    def began(self, exchange: Exchange) -> None:
        """Note a request that has come in."""

    def ended(self, exchange: Exchange) -> None:
        """Note a request that has ended, however it ended."""


class Recorder:
    """Passes events on to its listeners, in order."""

    __slots__ = ("_listeners",)

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def began(self, exchange: Exchange) -> None:
        """Note a request that has come in."""
        for listener in self._listeners:
            listener.began(exchange)

    def ended(self, exchange: Exchange) -> None:
        """Note a request that has ended. Called once for each request."""
        for listener in self._listeners:
            listener.ended(exchange)


class MetricsListener:
    """Puts requests into the metrics."""

    __slots__ = ("_metrics",)

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def began(self, exchange: Exchange) -> None:
        """Note a request that has come in."""
        self._metrics.began()

    def ended(self, exchange: Exchange) -> None:
        """Note a request that has ended."""
        now = time.monotonic()
        route, tokens, first = exchange.route, exchange.tokens, exchange.first_byte
        template = route.template if route is not None else ""
        counted = tokens is not None and route is not None and route.generates
        between = None
        if counted and exchange.stream and first and tokens is not None and tokens.completion > 1:
            between = (now - first) / (tokens.completion - 1)
        self._metrics.ended(
            template,
            exchange.status,
            exchange.outcome,
            exchange.key.id if exchange.key is not None else "",
            seconds=now - exchange.arrived,
            queued_seconds=exchange.queued_seconds if exchange.admitted else None,
            first_token_seconds=first - exchange.arrived if first and route is not None and route.generates else None,
            inter_token_seconds=between,
            prompt_tokens=tokens.prompt if tokens is not None else 0,
            cached_tokens=tokens.cached if tokens is not None else 0,
            completion_tokens=tokens.completion if tokens is not None else 0,
            tokens_per_second=tokens.tokens_per_second if tokens is not None else None,
        )
        if exchange.outcome == "client_gone":
            self._metrics.cancelled(template, "answering" if first else "waiting")


class UsageListener:
    """Puts relayed requests of a key into the usage."""

    __slots__ = ("_usage",)

    def __init__(self, usage: UsageStore) -> None:
        self._usage = usage

    def began(self, exchange: Exchange) -> None:
        """Nothing to note before the end."""

    def ended(self, exchange: Exchange) -> None:
        """Note a request that has ended, if a key used the model."""
        if exchange.key is None or not exchange.model or exchange.route is None or exchange.route.group == "admin":
            return
        tokens = exchange.tokens
        self._usage.record(
            exchange.key.id,
            exchange.model,
            prompt=tokens.prompt if tokens is not None else 0,
            cached=tokens.cached if tokens is not None else 0,
            completion=tokens.completion if tokens is not None else 0,
            error=exchange.outcome not in ("ok", "client_gone"),
        )
