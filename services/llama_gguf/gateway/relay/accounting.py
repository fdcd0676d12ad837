"""What a request has cost in tokens, whichever way its answer ended. Pure but for the clock.

One value, made here, is what limits charge, usage records, metrics count and the access log shows. Where the engine
told less than all it is a guess and not `exact`: then `engine_usage` asks the engine.
"""

from __future__ import annotations

import time

import orjson

from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.relay.response_relay import ResponseRelay
from llama_gguf.gateway.tokens.counts import Tokens, add, read_tokens, read_usage
from llama_gguf.gateway.tokens.estimate import BYTES_PER_TOKEN


def record_complete_usage(exchange: Exchange, relay: ResponseRelay, cost: int) -> None:
    """Note the tokens of a complete answer: the engine's counts, or what must stand in for them.

    Where the engine tells none (its own embeddings route, or a client that had them left out) the estimate stands
    until the engine has been asked, so that nobody can make its use invisible.
    """
    tokens = relay.tokens()
    if tokens is None:
        tokens = Tokens(prompt=cost)
    elif exchange.sequences > 1:
        tokens = _several(exchange, relay, tokens)
    elif not tokens.prompt:  # the first event of an Anthropic stream tells it, and may be missing
        tokens = tokens._replace(prompt=_prompt_guess(exchange), exact=False)
    exchange.tokens = tokens


def _several(exchange: Exchange, relay: ResponseRelay, told: Tokens) -> Tokens:
    """Count several answers in one. Each of them tells the length of its prompt, which was read only once."""
    if relay.mode == "stream":
        return _per_prompt(told, exchange.choices)
    answer = orjson.loads(relay.body)
    if not isinstance(answer, list):  # OpenAI's routes tell the sums
        return read_usage(relay.body) or told
    total = Tokens()  # llama.cpp's own: each tells its counts
    for part in answer:
        total = add(total, read_tokens(orjson.dumps(part)) or Tokens())
    return _per_prompt(total, exchange.choices)


def _per_prompt(total: Tokens, choices: int) -> Tokens:
    return total._replace(prompt=total.prompt // choices, cached=total.cached // choices)


def record_partial_usage(exchange: Exchange, relay: ResponseRelay) -> None:
    """Note what an answer that was cut short has cost, as far as can be seen: the engine's counts come at its end."""
    if exchange.route is None or not exchange.route.generates:
        return
    tokens = relay.tokens_so_far()
    if not tokens.exact:
        if not exchange.stream:
            exchange.unseen_seconds = time.monotonic() - relay.sent_at
        # The engine sends the head of a stream when it begins to read the prompt.
        if not tokens.prompt and not (exchange.stream and relay.mode == "waiting"):
            tokens = tokens._replace(prompt=_prompt_guess(exchange))
    exchange.tokens = tokens


def estimate_usage(seen: Tokens, unseen: float, cost: int) -> Tokens:
    """Return the tokens of a request of which not all is known, until the engine has told them, or if it never does.

    `unseen` are the tokens a plain answer that was cut is likely to have made by then, 0 where what came was `seen`;
    `cost` is what the whole request could use at most.
    """
    prompt = min(seen.prompt, cost)
    completion = max(0, min(cost - prompt, int(unseen))) if unseen else seen.completion
    return seen._replace(prompt=prompt, completion=completion)


def _prompt_guess(exchange: Exchange) -> int:
    return -(-len(exchange.request.body) // BYTES_PER_TOKEN)
