"""Asks the engine afterwards what a request has used, where its answer did not tell: beside the requests, never before.

The engine tells counts with the end of an answer, so of one that was left nobody hears them. The engine that our recipe
builds keeps them for a while under the id it was sent (image/engine/patches.cmake). Another engine, or one that has
gone, cannot be asked: then the guess stands.
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
"""Seconds before each question: the engine notices within 0.2 s that a client has left. A request whose body it still
reads it does not know yet, and does the work afterwards: so only what it still does not know at the last of these has
used nothing."""
_MORE_PAUSES = (5.0,) * 24
"""The engine first ends the batch of a prompt that it is reading, which takes a minute where the model is large and the
processor small or busy."""
_TIMEOUT_SECONDS = 2.0  # of one question
_GIVE_UP_SECONDS = 10.0  # on one question, the wait for its turn included
_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens")


class EngineUsage:
    """Asks one engine. Belongs to one event loop."""

    def __init__(self, client: EngineClient, engine: EngineMonitor, engine_key: str) -> None:
        self._client = client
        self._engine = engine
        self._key = engine_key
        self.id_prefix = os.urandom(6).hex()  # an engine may outlive this process
        self._turn = asyncio.Lock()
        self._waiting = 0

    def can_ask(self) -> bool:
        """Return whether it is worth asking at all."""
        return self._engine.state is EngineState.READY and self._waiting < MAX_WAITING

    async def tokens(self, number: int, guess: Tokens) -> Tokens:
        """Return `guess` with the engine's counts in place of its own, once the engine has released the request.

        The request was sent under the id of `id_prefix` and its number.
        """
        usage_id = f"{self.id_prefix}{number:x}"
        self._waiting += 1
        try:
            for question, pause in enumerate((*_PAUSES, *_MORE_PAUSES), 1):
                await asyncio.sleep(pause)
                async with asyncio.timeout(_GIVE_UP_SECONDS), self._turn:
                    counts = await self._ask(usage_id, believe_unknown=question >= len(_PAUSES))
                if counts is not None:
                    prompt, cached, completion = counts
                    return guess._replace(prompt=prompt, cached=cached, completion=completion, exact=True)
            reason = "the engine is still at it"
        except TimeoutError:
            reason = "too many wait to be asked about"
        except EngineFailure as error:
            reason = str(error)
        finally:
            self._waiting -= 1
        _log.debug("tokens are charged by estimate", extra=fields(usage_id=usage_id, reason=reason))
        return guess

    async def _ask(self, usage_id: str, *, believe_unknown: bool) -> tuple[int, ...] | None:
        """Return what a request has used, or None while that is not certain. Raises EngineFailure."""
        head = engine_head("GET", f"/usage?id={usage_id}", self._key)
        status, answer = await fetch(self._client, engine_request(head, b"", b""), _TIMEOUT_SECONDS)
        try:
            told = orjson.loads(answer)
            if status == 200:
                counts = tuple(_count(told[name]) for name in _COUNTS)
                known = told.get("known", any(counts))
                return None if told["open"] or not (known or believe_unknown) else counts
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise EngineFailure("protocol", f"/usage: {error!r}") from None
        raise EngineFailure("protocol", f"/usage: status {status}")


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value
