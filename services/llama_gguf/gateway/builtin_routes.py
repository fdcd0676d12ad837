"""The gateway's builtin routes: liveness, health, metrics and the reload of keys. They expose nothing about keys.

Their data comes from functions passed in; nothing here sends an inference request to the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from llama_gguf.api_errors import GatewayError
from llama_gguf.errors import KeysError
from llama_gguf.gateway.api.routes import Route, RouteKind
from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.message import HeaderLines, header_lines
from llama_gguf.keys.record import KeyRecord

Response = tuple[int, HeaderLines, bytes]

_NO_STORE = "Cache-Control: no-store\r\n"
_JSON = f"Content-Type: application/json\r\n{_NO_STORE}"


class BuiltinRoutes:
    """Handles the routes of group `builtin`."""

    def __init__(
        self,
        *,
        health: Callable[[], dict[str, object]],
        metrics: Callable[[bytes], Awaitable[tuple[str, bytes]]],
        reload_keys: Callable[[], Awaitable[int]],
        audit: Callable[[str, str, str], Awaitable[None]],
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._reload_keys = reload_keys
        self._audit = audit

    def respond_now(self, kind: RouteKind) -> Response:
        """Respond to liveness and health requests, which need no waiting."""
        if kind == "health":
            return 200, _JSON, orjson.dumps(self._health())
        return 200, _NO_STORE, b""

    async def respond(self, exchange: Exchange, route: Route, key: KeyRecord) -> Response:
        """Respond to `metrics` or `reload`. Raises GatewayError."""
        if route.kind == "metrics":
            media_type, body = await self._metrics(exchange.request.headers.get(b"accept", b""))
            return 200, header_lines([("Content-Type", media_type)]), body
        return await self._reload(key.id)

    async def _reload(self, actor: str) -> Response:
        try:
            loaded = await self._reload_keys()
        except KeysError as error:
            await self._audit(actor, "keys.reload_failed", error.code)
            # The error's message contains the file's path; clients get only the code.
            raise GatewayError(
                "keys_unusable",
                f"The keys file cannot be used ({error.code}); the previous keys stay in use. See the log.",
            ) from error
        await self._audit(actor, "keys.reload", str(loaded))
        return 200, _JSON, orjson.dumps({"status": "ok", "keys_loaded": loaded})
