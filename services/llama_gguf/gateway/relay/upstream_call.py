"""Sends a request to the engine, once: waits before that while the model loads, and never repeats it afterwards.

What has been written may have been read, and may be what ended the engine: then a repetition ends the next one too.
Owns what the engine's failures mean for the client.
"""

from __future__ import annotations

import asyncio
import time

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.inline_task import continue_as_task
from llama_gguf.gateway.relay.accounting import record_partial_usage
from llama_gguf.gateway.relay.response_relay import ResponseRelay, ResponseTimeouts
from llama_gguf.gateway.upstream.client import EngineClient, EngineConnection
from llama_gguf.gateway.upstream.errors import is_loading
from llama_gguf.gateway.upstream.monitor import EngineMonitor
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.states import EngineState

_READY = EngineState.READY  # used by each request, and looking up a member of an enum is slow


class UpstreamCaller:
    """Sends requests to the engine over pooled connections. Belongs to one event loop."""

    def __init__(
        self,
        client: EngineClient,
        engine: EngineMonitor,
        *,
        timeouts: ResponseTimeouts,
        wait_for_engine_seconds: float,
    ) -> None:
        self._client = client
        self._engine = engine
        self._timeouts = timeouts
        self._wait_seconds = wait_for_engine_seconds

    async def call(self, exchange: Exchange, request: bytes) -> ResponseRelay:
        """Send a request to the engine and wait for the end of the response. Raises GatewayError.

        Waits while the engine is loading. Only what the engine has refused unread, with 503, is sent again.
        """
        deadline = exchange.arrived + self._wait_seconds
        while True:
            if self._engine.state is not _READY:
                await continue_as_task()  # what follows has timeouts
                await self._engine.wait_ready(deadline)
            connection = self._client.acquire()
            if connection is None:
                connection = await self._connect(deadline)
                if connection is None:
                    continue
            relay = ResponseRelay(exchange, connection, self._timeouts)
            try:
                connection.send(request, relay)
                await relay
            except asyncio.CancelledError:
                connection.cancel(relay)
                record_partial_usage(exchange, relay)
                raise
            failure = relay.failure
            if failure is None:
                if relay.status == 503 and time.monotonic() < deadline and is_loading(relay.status, relay.body):
                    self._engine.connection_refused()
                    exchange.first_byte = 0.0
                    continue
                return relay
            if failure.reason == "closed":
                self._engine.check_now()
            if relay.events or failure.reason in ("timeout", "stalled"):
                record_partial_usage(exchange, relay)
            raise _translate(failure, self._engine)

    async def _connect(self, deadline: float) -> EngineConnection | None:
        """Return a new connection, or None if the engine's state must be checked again."""
        try:
            return await self._client.connect()
        except EngineFailure as failure:
            if failure.reason == "timeout":  # the engine is there, and busy or stuck
                self._engine.check_now()
                raise _translate(failure, self._engine) from None
            self._engine.connection_refused()
            if time.monotonic() >= deadline:
                raise _translate(failure, self._engine) from None
            return None


def _translate(failure: EngineFailure, engine: EngineMonitor) -> GatewayError:
    if failure.reason == "stalled":
        return GatewayError("client_stalled", f"The client read nothing for {failure.detail}.")
    if failure.reason == "timeout":
        return GatewayError("timeout", f"The engine took longer than {failure.detail}.")
    if failure.reason == "protocol":
        return GatewayError("engine_protocol", "The engine sent an invalid response.")
    if failure.reason == "connect":
        return engine.unavailable_error()
    return GatewayError("engine_closed", "The engine closed the connection before the response was complete.")
