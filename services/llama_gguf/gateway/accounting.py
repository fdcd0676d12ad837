"""What a request has cost in tokens, whichever way its answer ended. Pure.

One value, made here, is what limits charge, usage records, metrics count and the access log shows.
"""

from __future__ import annotations

from .exchange import Exchange
from .proxy import Relay
from .sse import Tokens

_BYTES_PER_TOKEN = 4


def counted(exchange: Exchange, relay: Relay, cost: int) -> Tokens:
    """Return the tokens of a complete answer: the engine's counts, or what must stand in for them.

    Where the engine tells none (its own embeddings route, or a client that had them left out) the estimate stands, so
    that nobody can make its use invisible. Of several answers in one it counts a single one.
    """
    tokens = relay.tokens()
    if tokens is None:
        return Tokens(prompt=cost)
    # The engine leaves out the first event of an Anthropic stream when its first token is no whole character.
    if not tokens.prompt:
        tokens = tokens._replace(prompt=_prompt_guess(exchange), exact=False)
    if exchange.sequences > 1:
        times = exchange.sequences
        return tokens._replace(prompt=tokens.prompt * times, completion=tokens.completion * times, exact=False)
    return tokens


def seen_so_far(exchange: Exchange, relay: Relay) -> Tokens | None:
    """Return what an answer that was cut short has cost, as far as can be seen: the engine's counts come at its end.

    An event is a token, as a rule. None for routes that make no tokens.
    """
    if exchange.route is None or not exchange.route.generates:
        return None
    return Tokens(prompt=_prompt_guess(exchange), completion=relay.events)


def _prompt_guess(exchange: Exchange) -> int:
    return -(-len(exchange.request.body) // _BYTES_PER_TOKEN)
