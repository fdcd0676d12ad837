"""What a request has cost in tokens, whichever way its answer ended. Pure but for the clock.

One value, made here, is what limits charge, usage records, metrics count and the access log shows. Where the engine
told less than all, a Doubt says what `recount` can still find out.
"""

from __future__ import annotations

import time

import orjson

from .estimate import BYTES_PER_TOKEN
from .exchange import Doubt, Exchange
from .proxy import Relay
from .sse import Tokens, add, read_tokens

_STOPPED = ("stop", "tool_calls")


def note_whole(exchange: Exchange, relay: Relay, cost: int) -> None:
    """Note the tokens of a complete answer: the engine's counts, or what must stand in for them.

    Where the engine tells none (its own embeddings route, or a client that had them left out) the estimate stands, so
    that nobody can make its use invisible.
    """
    tokens = relay.tokens()
    if tokens is None:
        tokens = Tokens(prompt=cost)
        if exchange.route is not None and exchange.route.group == "embeddings":
            exchange.doubt = Doubt(prompt=True)
    elif exchange.sequences > 1:
        tokens, exchange.doubt = _several(exchange, relay, tokens)
    elif not tokens.prompt:  # the engine leaves them out with the first event of an Anthropic stream
        tokens = tokens._replace(prompt=_prompt_guess(exchange), exact=False)
        exchange.doubt = Doubt(prompt=True)
    exchange.tokens = tokens


def _several(exchange: Exchange, relay: Relay, first: Tokens) -> tuple[Tokens, Doubt | None]:
    """Count several answers in one. Every one of them tells the length of its prompt, which was read only once."""
    if relay.mode == "stream":
        return _per_prompt(first, exchange.choices), None
    answer = orjson.loads(relay.body)
    if isinstance(answer, list):  # llama.cpp's own routes: each with its counts
        total = Tokens()
        for part in answer:
            total = add(total, read_tokens(orjson.dumps(part)) or Tokens())
        return _per_prompt(total, exchange.choices), None
    # OpenAI's routes tell the counts of the first only.
    prompts = exchange.sequences // exchange.choices
    others = answer.get("choices", ())[1:]
    texts = tuple(_text(choice) for choice in others)
    ends = sum(choice.get("finish_reason") in _STOPPED for choice in others)  # each a token of its own
    guess = sum(-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts)
    tokens = first._replace(
        prompt=first.prompt * prompts, completion=first.completion + ends + guess, exact=False, tokens_per_second=None
    )
    return tokens, Doubt(prompts > 1, texts, first.completion + ends)


def _per_prompt(total: Tokens, choices: int) -> Tokens:
    return total._replace(prompt=total.prompt // choices, cached=total.cached // choices)


def _text(choice: dict[str, object]) -> str:
    """Return what was generated for a choice, as far as it shows."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return str(choice.get("text") or "")
    parts = [str(message.get(name) or "") for name in ("reasoning_content", "content")]
    calls = message.get("tool_calls")
    return "".join(parts) + (orjson.dumps(calls).decode() if calls else "")


def note_cut(exchange: Exchange, relay: Relay) -> None:
    """Note what an answer that was cut short has cost, as far as can be seen: the engine's counts come at its end."""
    if exchange.route is None or not exchange.route.generates:
        return
    if exchange.stream and relay.mode == "waiting":  # the engine sends the head when it begins to read the prompt
        return
    tokens = relay.tokens_so_far()
    if not tokens.prompt:
        tokens = tokens._replace(prompt=_prompt_guess(exchange))
        seconds = 0.0 if exchange.stream else time.monotonic() - relay.sent_at
        exchange.doubt = Doubt(prompt=True, unseen_seconds=seconds)
    exchange.tokens = tokens


def with_unseen(tokens: Tokens, doubt: Doubt, pace: float, cost: int) -> Tokens:
    """Return the tokens with those of a plain answer that was cut: nothing of it was seen, but it took its time.

    `pace` is how many tokens a second an answer makes as a rule, `cost` what the whole request could use at most.
    """
    if not doubt.unseen_seconds:
        return tokens
    return tokens._replace(completion=max(0, min(cost - tokens.prompt, int(doubt.unseen_seconds * pace))))


def _prompt_guess(exchange: Exchange) -> int:
    return -(-len(exchange.request.body) // BYTES_PER_TOKEN)
