"""What the engine says of its model, asked for once for each of its processes: nothing of it changes while one runs.

So the list of models costs the engine nothing, and is there before the engine is: names come from the configuration.
Nor does a request with tools cost it more for being judged by what the model's chat template can do.
"""

from __future__ import annotations

import logging

from llama_gguf.gateway.upstream.client import EngineClient, fetch
from llama_gguf.gateway.upstream.monitor import EngineMonitor
from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.logs import fields
from llama_gguf.states import EngineState

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 2.0


class EngineDescription:
    """Asks one engine at one path: /v1/models or /props. Belongs to one event loop."""

    def __init__(self, client: EngineClient, engine: EngineMonitor, engine_key: str, path: str) -> None:
        self._client = client
        self._engine = engine
        self._request = engine_request(engine_head("GET", path, engine_key), b"", b"")
        self._known = b""
        self._process = 0  # the engine that said so

    @property
    def known(self) -> bytes:
        """The engine's own words as far as they are known; empty before it has been asked."""
        return self._known

    async def body(self) -> bytes:
        """Return the engine's own words, empty until they are known. Raises GatewayError if they never will be.

        While the engine loads again after a restart, they are those of its previous process.
        """
        if self._engine.state is EngineState.FAILED:
            raise self._engine.unavailable_error()
        if self._engine.state is not EngineState.READY or self._process == self._client.engine_pid:
            return self._known
        try:
            status, body = await fetch(self._client, self._request, _TIMEOUT_SECONDS)
        except EngineFailure as failure:
            _log.debug("cannot ask the engine for its model", extra=fields(reason=str(failure)))
            return self._known
        if status != 503:  # it loads; else an engine that does not know the path need not be asked again
            self._known, self._process = body if status == 200 else b"", self._client.engine_pid
        return self._known
