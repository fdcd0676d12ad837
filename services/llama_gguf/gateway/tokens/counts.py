"""Token counts, and how to find them in a response without parsing all of it. Pure.

The engine ends a stream with `timings` (and `usage`, if the client requested it) and a non-streamed response with both;
embeddings and rerankings have `usage` near the start. Raw quotes cannot occur inside a JSON string, so a text that
contains `"usage":{` is never mistaken for one.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

_TIMINGS = b'"timings":{'
_USAGE = b'"usage":{'
_FINISH_FIELDS = (b'_reason":"', b'"stop_type":"')
_REASONS = {
    reason.encode("ascii"): reason
    for reason in (
        *("stop", "length", "tool_calls", "content_filter", "function_call"),  # OpenAI
        *("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"),  # Anthropic
        *("eos", "limit", "word", "none"),  # llama.cpp
    )
}


class Tokens(NamedTuple):
    """Tokens of one request. `cached` of the `prompt` tokens came from the engine's cache.

    `exact` distinguishes the engine's own count from an estimate.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    exact: bool = False
    finish_reason: str = ""
    tokens_per_second: float | None = None

    @property
    def total(self) -> int:
        """Prompt and completion tokens together: what a limit charges."""
        return self.prompt + self.completion


def add(one: Tokens, other: Tokens) -> Tokens:
    """Return the sum of two counts; finish reason and speed are the last one's."""
    return other._replace(
        prompt=one.prompt + other.prompt,
        cached=one.cached + other.cached,
        completion=one.completion + other.completion,
    )


def read_tokens(data: bytes) -> Tokens | None:
    """Return the last counts in the bytes of a response, or None if there are none."""
    at = data.rfind(_TIMINGS)
    # The engine's own counts are last; an earlier object of that name belongs to a tool call or a schema.
    if at >= 0 and data.find(_USAGE, at) < 0:
        tokens = _from_timings(data, at + len(_TIMINGS) - 1)
        if tokens is not None:
            return tokens
    return read_usage(data)


def read_usage(data: bytes) -> Tokens | None:
    """Return the counts of the last `usage` in the bytes of a response, or None if there is none."""
    usage = _last_object(_USAGE, data)
    return None if usage is None else _from_usage(usage, _finish_reason(data))


def _from_timings(data: bytes, start: int) -> Tokens | None:
    """Read the flat object at offset `start`. Runs for every plain request, so it makes few calls."""
    try:
        timings = orjson.loads(data[start : data.find(b"}", start) + 1])
        completion = timings["predicted_n"]
    except (orjson.JSONDecodeError, KeyError):
        return None
    get = timings.get
    prompt, cached, speed = get("prompt_n", 0), get("cache_n", 0), get("predicted_per_second")
    if not (type(prompt) is type(cached) is type(completion) is int and prompt >= 0 <= cached and completion >= 0):
        prompt, cached, completion = _non_negative(prompt), _non_negative(cached), _non_negative(completion)
    counts = (prompt + cached, cached, completion, True, _finish_reason(data), speed if type(speed) is float else None)
    return tuple.__new__(Tokens, counts)  # Tokens(...) would take two calls more


def _from_usage(usage: dict[str, object], reason: str) -> Tokens:
    prompt = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    # Anthropic counts cached tokens separately from the input.
    cache_read = _count(usage, "cache_read_input_tokens")
    return Tokens(
        prompt + cache_read,
        cached + cache_read,
        _count(usage, "completion_tokens") or _count(usage, "output_tokens"),
        exact=True,
        finish_reason=reason,
    )


def _last_object(name: bytes, data: bytes) -> dict[str, object] | None:
    """Return the last JSON object called `name`; it can contain objects, but those contain none."""
    at = data.rfind(name)
    if at < 0:
        return None
    start = at + len(name) - 1
    end = data.find(b"}", start) + 1
    while end:
        if data.count(b"{", start, end) == data.count(b"}", start, end):
            try:
                value: dict[str, object] = orjson.loads(data[start:end])
            except orjson.JSONDecodeError:
                return None
            return value
        end = data.find(b"}", end) + 1
    return None


def _finish_reason(data: bytes) -> str:
    for name in _FINISH_FIELDS:
        at = data.rfind(name)
        if at >= 0:
            at += len(name)
            return _REASONS.get(data[at : data.find(b'"', at)], "")
    return ""


def _count(values: dict[str, object], name: str) -> int:
    return _non_negative(values.get(name, 0))


def _non_negative(value: object) -> int:
    return value if type(value) is int and value > 0 else 0  # bool is a subclass of int
