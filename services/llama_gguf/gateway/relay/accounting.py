"""What a request has cost in tokens, however its response ended. Pure except for the clock.

The value computed here is what limits charge, usage records, metrics count and the access log shows. If the response
does not report all counts, it is an estimate and not `exact`: then `engine_usage` queries the engine.
"""

from __future__ import annotations

import time

import orjson

from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.relay.response_relay import ResponseRelay
from llama_gguf.gateway.tokens.counts import Tokens, add, read_tokens, read_usage
from llama_gguf.gateway.tokens.estimate import BYTES_PER_TOKEN


def record_complete_usage(exchange: Exchange, relay: ResponseRelay, cost: int) -> None:
    """Set the tokens of a complete response: the engine's counts, or an estimate.

    If the response reports none (llama.cpp's own embeddings route, or a client that disabled them) the estimate stands
    until the engine has been queried, so that no client can hide its usage.
    """
    tokens = relay.tokens()
    if tokens is None:
        tokens = Tokens(prompt=cost)
    elif exchange.sequences > 1:
        tokens = _sum_choices(exchange, relay, tokens)
    elif not tokens.prompt:  # the first event of an Anthropic stream reports it, and can be missing
        tokens = tokens._replace(prompt=_estimate_prompt(exchange), exact=False)
    exchange.tokens = tokens


def _sum_choices(exchange: Exchange, relay: ResponseRelay, reported: Tokens) -> Tokens:
    """Sum the tokens of several choices. Each reports the length of its prompt, which was processed only once."""
    if relay.mode == "stream":
        return _per_prompt(reported, exchange.choices)
    response = orjson.loads(relay.body)
    if not isinstance(response, list):  # OpenAI's routes report the sums
        return read_usage(relay.body) or reported
    total = Tokens()  # llama.cpp's own routes: each choice reports its counts
    for choice in response:
        total = add(total, read_tokens(orjson.dumps(choice)) or Tokens())
    return _per_prompt(total, exchange.choices)


def _per_prompt(total: Tokens, choices: int) -> Tokens:
    return total._replace(prompt=total.prompt // choices, cached=total.cached // choices)


def record_partial_usage(exchange: Exchange, relay: ResponseRelay) -> None:
    """Set the tokens of an incomplete response, as far as they are known: the engine reports its counts at the end."""
    if exchange.route is None or not exchange.route.generates:
        return
    tokens = relay.tokens_so_far()
    if not tokens.exact:
        if not exchange.stream:
            exchange.unseen_seconds = time.monotonic() - relay.sent_at
        # The engine sends the head of a stream when it starts to process the prompt.
        if not tokens.prompt and not (exchange.stream and relay.mode == "waiting"):
            tokens = tokens._replace(prompt=_estimate_prompt(exchange))
    exchange.tokens = tokens


def begin_part(exchange: Exchange) -> None:
    """Prepare for the next of several requests to the engine for one of a client's."""
    exchange.first_byte = 0.0
    exchange.tokens = None


def end_part(exchange: Exchange, before: Tokens) -> Tokens:
    """Add the tokens of a part, complete or not, to those of the parts before it; return the sum."""
    whole = add(before, exchange.tokens) if exchange.tokens is not None else before
    exchange.tokens = whole
    return whole


def estimate_usage(seen: Tokens, unseen: float, cost: int) -> Tokens:
    """Estimate the tokens of a request whose counts the engine has not reported, and might never report.

    `unseen` are the tokens that an aborted non-streamed response has probably generated, 0 if all were `seen`; `cost`
    is the maximum for the request.
    """
    prompt = min(seen.prompt, cost)
    completion = max(0, min(cost - prompt, int(unseen))) if unseen else seen.completion
    return seen._replace(prompt=prompt, completion=completion)


def _estimate_prompt(exchange: Exchange) -> int:
    return -(-len(exchange.request.body) // BYTES_PER_TOKEN)
