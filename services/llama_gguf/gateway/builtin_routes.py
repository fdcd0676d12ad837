"""The gateway's builtin routes: liveness, health, metrics and the reload of keys. They expose nothing about keys.

Their data comes from functions passed in; nothing here sends an inference request to the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

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


class ModelControl(Protocol):
    """Loads and unloads models by name. Each call raises GatewayError for a name that is not known."""

    @property
    def names(self) -> tuple[str, ...]:
        """The main names of all models."""

    def load(self, name: str) -> None:
        """Begin to load it."""

    def unload(self, name: str) -> None:
        """Unload it once its requests have ended."""

    def pin(self, name: str, *, pinned: bool) -> None:
        """Keep it in memory, or not."""

    def describe(self, name: str) -> dict[str, object]:
        """Return its state as JSON values."""


class BuiltinRoutes:
    """Handles the routes of group `builtin`. `models`: None where the only model stays loaded."""

    def __init__(
        self,
        *,
        health: Callable[[], dict[str, object]],
        metrics: Callable[[bytes], Awaitable[tuple[str, bytes]]],
        reload_keys: Callable[[], Awaitable[int]],
        audit: Callable[[str, str, str], Awaitable[None]],
        models: ModelControl | None = None,
    ) -> None:
        self._models = models
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
        """Respond to metrics, the reload of keys, and what an operator does with models. Raises GatewayError."""
        if route.kind == "metrics":
            media_type, body = await self._metrics(exchange.request.headers.get(b"accept", b""))
            return 200, header_lines([("Content-Type", media_type)]), body
        if route.kind == "reload":
            return await self._reload(key.id)
        return await self._change_models(exchange, route, key.id)

    async def _change_models(self, exchange: Exchange, route: Route, actor: str) -> Response:
        models = self._models
        if models is None:
            raise GatewayError(
                "not_supported",
                "This appliance keeps its only model loaded (set engine.sleep_idle_seconds, or several models).",
            )
        if route.kind == "residency":
            return 200, _JSON, orjson.dumps({"models": [models.describe(name) for name in models.names]})
        name = _model_of(exchange.request.body)
        models.describe(name)  # whether there is such a model
        await self._audit(actor, f"models.{route.kind}", name)
        match route.kind:
            case "load":
                models.load(name)
            case "unload":
                models.unload(name)
            case _:
                models.pin(name, pinned=route.kind == "pin")
        return 202, _JSON, orjson.dumps(models.describe(name))

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


def _model_of(body: bytes) -> str:
    """Return the model in a body {"model": NAME}. Raises GatewayError."""
    try:
        name = orjson.loads(body)["model"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        name = None
    if not isinstance(name, str) or not name:
        raise GatewayError("bad_request", 'The body must be {"model": NAME}.', param="model")
    return name
