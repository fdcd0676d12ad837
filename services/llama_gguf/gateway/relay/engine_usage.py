"""Queries the engine afterwards for the tokens of a request whose response did not report them, in the background.

The engine reports counts at the end of a response, so nobody receives those of an aborted one. The engine that our
recipe builds stores them for a while under the id in the request (image/engine/patches.cmake). Another engine, or one
that has exited, cannot be queried: then the estimate stands.
"""

from __future__ import annotations

import asyncio
import logging
import os

import orjson

from llama_gguf.gateway.tokens.counts import Tokens
from llama_gguf.gateway.upstream.client import EngineClient, fetch
from llama_gguf.gateway.upstream.monitor import EngineMonitor
from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.logs import fields
from llama_gguf.states import EngineState

_log = logging.getLogger(__name__)

MAX_WAITING = 256
_PAUSES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before each query: the engine notices within 0.2 s that a client has disconnected. It does not know a request
yet while it reads the body, and processes it afterwards: so only a request that is still unknown at the last of these
has used nothing."""
_MORE_PAUSES = (5.0,) * 24
"""The engine first finishes the prompt batch that it is processing, which takes a minute if the model is large and the
CPU slow or busy."""
_TIMEOUT_SECONDS = 2.0  # of one query
_GIVE_UP_SECONDS = 10.0  # for one query, the wait for the lock included
_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens")


class EngineUsage:
    """Queries one engine. Belongs to one event loop."""

    def __init__(self, client: EngineClient, engine: EngineMonitor, engine_key: str) -> None:
        self._client = client
        self._engine = engine
        self._key = engine_key
        self.id_prefix = os.urandom(6).hex()  # an engine can outlive this process
        self._lock = asyncio.Lock()
        self._waiting = 0

    def can_query(self) -> bool:
        """Return whether the engine can be queried now."""
        return self._engine.state is EngineState.READY and self._waiting < MAX_WAITING

    async def tokens(self, number: int, estimate: Tokens) -> Tokens:
        """Return `estimate` with the counts of the engine, once the engine has released the request.

        The request's usage id is `id_prefix` and its number.
        """
        usage_id = f"{self.id_prefix}{number:x}"
        self._waiting += 1
        try:
            for attempt, pause in enumerate((*_PAUSES, *_MORE_PAUSES), 1):
                await asyncio.sleep(pause)
                async with asyncio.timeout(_GIVE_UP_SECONDS), self._lock:
                    counts = await self._query(usage_id, unknown_is_final=attempt >= len(_PAUSES))
                if counts is not None:
                    prompt, cached, completion = counts
                    return estimate._replace(prompt=prompt, cached=cached, completion=completion, exact=True)
            reason = "the engine is still processing the request"
        except TimeoutError:
            reason = "too many queries are waiting"
        except EngineFailure as error:
            reason = str(error)
        finally:
            self._waiting -= 1
        _log.debug("tokens are charged by estimate", extra=fields(usage_id=usage_id, reason=reason))
        return estimate

    async def _query(self, usage_id: str, *, unknown_is_final: bool) -> tuple[int, ...] | None:
        """Return the counts of a request, or None while they are not final. Raises EngineFailure."""
        head = engine_head("GET", f"/usage?id={usage_id}", self._key)
        status, body = await fetch(self._client, engine_request(head, b"", b""), _TIMEOUT_SECONDS)
        try:
            usage = orjson.loads(body)
            if status == 200:
                counts = tuple(_count(usage[name]) for name in _COUNTS)
                known = usage.get("known", any(counts))
                return None if usage["open"] or not (known or unknown_is_final) else counts
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise EngineFailure("protocol", f"/usage: {error!r}") from None
        raise EngineFailure("protocol", f"/usage: status {status}")


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value
