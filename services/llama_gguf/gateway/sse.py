"""What the end of an answer tells: token counts, finish reason and speed, without parsing every event.

The engine ends a stream with `timings` (and `usage`, where the client asked) and a plain answer with both; embeddings
and rerankings carry `usage` near the start. So the first and last few kilobytes of an answer are kept, by reference
where possible, and searched once at the end. Raw quotes cannot occur inside a JSON string, so a text that talks
about `"usage":{` is never mistaken for one.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

TAIL_BYTES = 8192
HEAD_BYTES = 2048
EVENT_END = b"\n\n"
EVENT_END_FRAMED = b"\n\n\r\n"
"""The end of an event that is also the end of a chunk. The engine puts whole events into each chunk, and raw newlines
cannot occur inside an event's JSON, so among framed bytes this is always both."""
_TIMINGS = b'"timings":{'
_USAGE = b'"usage":{'
_FINISH = (b'_reason":"', b'"stop_type":"')
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

    `exact` tells the engine's own count from what could be seen of an answer that was cut short.
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


class Observer:
    """Sees the bytes of one answer pass and keeps its ends. Costs an append and a count for each read."""

    __slots__ = ("_head", "_kept", "_size", "events", "size")

    def __init__(self) -> None:
        self._head = b""
        self._kept: list[bytes] = []
        self._size = 0
        self.events = 0  # finished server-sent events, chunk framing or not
        self.size = 0

    def see(self, data: bytes) -> None:
        """Take note of bytes on their way to the client."""
        if not self.size:
            self._head = data[:HEAD_BYTES]
        self.size += len(data)
        self.events += data.count(EVENT_END)
        self._kept.append(data)
        self._size += len(data)
        if self._size > 4 * TAIL_BYTES:
            tail = b"".join(self._kept)[-TAIL_BYTES:]
            self._kept = [tail]
            self._size = len(tail)

    def tokens(self) -> Tokens | None:
        """Return the engine's counts, or None where the answer (so far) holds none.

        Anthropic's streams tell the prompt's tokens in their first event and the answer's in their last.
        """
        last, first = read_tokens(b"".join(self._kept)), read_tokens(self._head)
        if last is not None and first is not None and not last.prompt:
            return last._replace(prompt=first.prompt, cached=first.cached)
        return last or first


def read_tokens(data: bytes) -> Tokens | None:
    """Return the counts that stand last in the text of an answer, or None where there are none."""
    at = data.rfind(_TIMINGS)
    # The engine's own counts stand last; an object of that name further in front is a tool call's or a schema's.
    if at >= 0 and data.find(_USAGE, at) < 0:
        tokens = _from_timings(data, at + len(_TIMINGS) - 1)
        if tokens is not None:
            return tokens
    usage = _last_object(_USAGE, data)
    return None if usage is None else _from_usage(usage, _finish_reason(data))


def _from_timings(data: bytes, start: int) -> Tokens | None:
    """Read the flat object that begins at `start`. Every plain request passes here, so it makes few calls."""
    try:
        timings = orjson.loads(data[start : data.find(b"}", start) + 1])
        completion = timings["predicted_n"]
    except (orjson.JSONDecodeError, KeyError):
        return None
    prompt, cached, speed = timings.get("prompt_n"), timings.get("cache_n"), timings.get("predicted_per_second")
    # bool is an int, and no count
    cached = cached if type(cached) is int and cached > 0 else 0
    return Tokens(
        (prompt if type(prompt) is int and prompt > 0 else 0) + cached,
        cached,
        completion if type(completion) is int and completion > 0 else 0,
        exact=True,
        finish_reason=_finish_reason(data),
        tokens_per_second=speed if type(speed) is float else None,
    )


def _from_usage(usage: dict[str, object], reason: str) -> Tokens:
    prompt = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    # Anthropic counts what it read from the cache apart from the input.
    cache_read = _count(usage, "cache_read_input_tokens")
    return Tokens(
        prompt + cache_read,
        cached + cache_read,
        _count(usage, "completion_tokens") or _count(usage, "output_tokens"),
        exact=True,
        finish_reason=reason,
    )


def _last_object(name: bytes, data: bytes) -> dict[str, object] | None:
    """Return the last JSON object called `name`; it may hold objects, but not in turn objects of those."""
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
    for name in _FINISH:
        at = data.rfind(name)
        if at >= 0:
            at += len(name)
            return _REASONS.get(data[at : data.find(b'"', at)], "")
    return ""


def _count(values: dict[str, object], name: str) -> int:
    value = values.get(name, 0)
    return value if type(value) is int and value > 0 else 0  # bool is an int, and no count


def chunk(data: bytes) -> bytes:
    """Return `data` in the framing of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


KEEPALIVE_EVENT = b": keep-alive\n\n"
LAST_CHUNK = b"0\r\n\r\n"
