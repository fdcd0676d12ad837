"""Asks the engine afterwards for the counts that an answer did not tell, beside the requests and never before them.

The engine counts at an answer's end, so of one that was cut only the tokens that came by are known, and of several
answers in one OpenAI's routes tell the first. How long a prompt was it tells for the same body without a slot
(`input_tokens`, `tokenize`). Where it cannot be asked, or too much waits to be asked, the guess stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import orjson

from llama_gguf.logs import fields

from .engine_client import EngineClient, fetch
from .engine_http import EngineFailure
from .engine_state import EngineState
from .exchange import Doubt, Exchange
from .headers import engine_head, engine_request
from .sse import Tokens

_log = logging.getLogger(__name__)

MAX_WAITING = 64
MAX_BODY_BYTES = 1_048_576
MAX_TEXTS = 32
_AT_ONCE = 2
_TIMEOUT_SECONDS = 2.0
_JSON = b"application/json"
_INFILL_MARKS = 4  # of the beginning, the prefix, the suffix and the gap
_COUNTERS = {
    "chat": "/v1/chat/completions/input_tokens",
    "responses": "/v1/responses/input_tokens",
    "messages": "/v1/messages/count_tokens",
}
_PROMPTS = {"completions": ("prompt",), "embeddings": ("input", "content")}


class UncountableError(Exception):
    """The engine cannot tell, or is not to be asked."""


class Recounter:
    """Asks one engine. Belongs to one event loop."""

    def __init__(self, client: EngineClient, engine: EngineState, engine_key: str) -> None:
        self._client = client
        self._engine = engine
        self._key = engine_key
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    def can_ask(self, exchange: Exchange) -> bool:
        """Return whether it is worth asking about this request at all."""
        return (
            self._engine.state == "ready"
            and self._waiting < MAX_WAITING
            and len(exchange.request.body) <= MAX_BODY_BYTES
        )

    async def tokens(self, exchange: Exchange, guess: Tokens, doubt: Doubt) -> Tokens:
        """Return `guess` with what the engine could tell in the place of what is in doubt."""
        self._waiting += 1
        try:
            async with self._turns:
                prompt = await self._prompt(exchange) if doubt.prompt else guess.prompt
                completion = guess.completion
                if doubt.answers:
                    completion = doubt.told + sum([await self._text(text, special=False) for text in doubt.answers])
            return guess._replace(prompt=prompt, completion=completion)
        except (EngineFailure, UncountableError) as error:
            _log.debug("tokens are charged by estimate", extra=fields(id=exchange.request_id, reason=str(error)))
            return guess
        finally:
            self._waiting -= 1

    async def _prompt(self, exchange: Exchange) -> int:
        """Return the tokens of all prompts of a request."""
        route, body = exchange.route, exchange.request.body
        group = route.group if route is not None else ""
        if group in _COUNTERS:
            return _number(await self._ask(_COUNTERS[group], body), "input_tokens")
        if group == "infill":
            return await self._infill(orjson.loads(body))
        if group in _PROMPTS:
            content: Mapping[str, Any] = orjson.loads(body)
            for name in _PROMPTS[group]:
                if (value := content.get(name)) is not None:
                    return await self._prompts(value)
        raise UncountableError(f"no way to count a prompt of {group}")

    async def _prompts(self, value: object) -> int:
        """Return the tokens of what a client may send as `prompt`: a text, tokens, both mixed, or a list of those."""
        if isinstance(value, str):
            return await self._text(value, special=True)
        if not isinstance(value, list) or len(value) > MAX_TEXTS:
            raise UncountableError("no plain prompt")
        if not any(type(item) is int for item in value):
            return sum([await self._prompts(item) for item in value])
        tokens = sum(type(item) is int for item in value)
        texts = [item for item in value if isinstance(item, str)]
        return tokens + sum([await self._text(text, special=text is value[0]) for text in texts])

    async def _infill(self, content: Mapping[str, Any]) -> int:
        """Return the tokens of what the engine makes of the code before and behind the gap."""
        if content.get("input_extra"):
            raise UncountableError("files around the gap")
        texts = [content.get(name) or "" for name in ("input_prefix", "input_suffix", "prompt")]
        if not all(isinstance(text, str) for text in texts):
            raise UncountableError("no plain prompt")
        return _INFILL_MARKS + sum([await self._text(text, special=False) for text in texts if text])

    async def _text(self, text: str, *, special: bool) -> int:
        """Return the tokens of a text; `special`: with the marks of a prompt's beginning."""
        body = {"content": text, "add_special": special, "parse_special": special}
        answer = await self._ask("/tokenize", orjson.dumps(body))
        return len(answer.get("tokens") or ())

    async def _ask(self, path: str, body: bytes) -> Mapping[str, Any]:
        request = engine_request(engine_head("POST", path, self._key), body, _JSON)
        status, answer = await fetch(self._client, request, _TIMEOUT_SECONDS)
        if status != 200:
            raise UncountableError(f"{path}: status {status}")
        value: Mapping[str, Any] = orjson.loads(answer)
        return value


def _number(answer: Mapping[str, Any], name: str) -> int:
    value = answer.get(name)
    if type(value) is not int or value < 0:
        raise UncountableError("no count in the engine's answer")
    return value
