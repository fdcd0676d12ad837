"""What an engine can do that only ours can, asked for once for each of its processes.

An engine of the operator's own (`engine.binary`) lacks the changes of image/engine/patches.cmake.
"""

from __future__ import annotations

import logging

import orjson

from llama_gguf.gateway.http1.inline_task import continue_as_task
from llama_gguf.gateway.upstream.client import EngineClient, fetch
from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 2.0


class EngineFeatures:
    """Asks one engine. Belongs to one event loop."""

    def __init__(self, client: EngineClient, engine_key: str) -> None:
        self._client = client
        self._request = engine_request(engine_head("GET", "/usage?id=", engine_key), b"", b"")
        self._process = 0  # the engine that was asked
        self._cache_scopes = False

    @property
    def known_scopes(self) -> bool:
        """Whether this process of the engine has said that it keeps the prompts of different scopes apart."""
        return self._cache_scopes and self._process == self._client.engine_pid

    async def cache_scopes(self) -> bool:
        """Return whether the engine keeps the prompts of different scopes apart; False as long as it is not known."""
        if self._process and self._process == self._client.engine_pid:
            return self._cache_scopes
        await continue_as_task()  # what follows has timeouts
        try:
            status, body = await fetch(self._client, self._request, _TIMEOUT_SECONDS)
            found = orjson.loads(body)
        except (EngineFailure, orjson.JSONDecodeError) as failure:
            _log.debug("cannot ask the engine for its features", extra=fields(reason=str(failure)))
            return False
        self._cache_scopes = status == 200 and isinstance(found, dict) and found.get("cache_scope") is True
        if not self._cache_scopes and self._process != self._client.engine_pid:
            _log.warning(
                "this engine cannot keep the prompts of different keys apart in its cache, so requests do not use it "
                "while there are several keys; the route /v1/messages has no way to avoid it (limits.cache_isolation)"
            )
        self._process = self._client.engine_pid
        return self._cache_scopes
