"""What the end of an answer tells: token counts, finish reason and speed, without parsing every event.

The engine ends a stream with `timings` (and `usage`, where the client asked) and a plain answer with both; embeddings
and rerankings carry `usage` near the start. So the first and last few kilobytes of an answer are kept, by reference
where possible, and searched once at the end. Raw quotes cannot occur inside a JSON string, so a text that talks
about `"usage":{` is never mistaken for one.
"""

from __future__ import annotations

import re
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
_MIDDLE = re.compile(rb"(?:[0-9a-fA-F]+\r\n)?event: (?:content_block_|message_delta)")
_PREDICTED = re.compile(rb'"tokens_predicted":(\d+),"tokens_evaluated":(\d+)')
_UNFINISHED = (b'"finish_reason":null', b'"stop":false')
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
    """Sees the bytes of one answer pass and keeps its ends. Costs an append and a count for each read.

    `boundary` ends what the engine sends at a time: a chunk where they are framed, else an event.
    """

    __slots__ = ("_boundary", "_head", "_kept", "_size", "events", "size")

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._head = b""
        self._kept: list[bytes] = []
        self._size = 0
        self.events = 0  # what the engine sent: as a rule, one for each token
        self.size = 0

    def see(self, data: bytes) -> None:
        """Take note of bytes on their way to the client."""
        if not self.size:
            self._head = data[:HEAD_BYTES]
        self.size += len(data)
        self.events += data.count(self._boundary)
        self._kept.append(data)
        self._size += len(data)
        if self._size > 4 * TAIL_BYTES:
            tail = b"".join(self._kept)[-TAIL_BYTES:]
            self._kept = [tail]
            self._size = len(tail)

    def forget(self) -> None:
        """Take what has been seen for nothing: it was no part of the answer."""
        self._head = b""
        self._kept = []
        self._size = self.events = self.size = 0

    def tokens(self) -> Tokens | None:
        """Return the engine's counts, or None where the answer (so far) holds none.

        Anthropic's streams tell the prompt's tokens in their first event and the answer's in their last.
        """
        last, first = read_tokens(b"".join(self._kept)), read_tokens(self._head)
        if last is not None and first is not None and not last.prompt:
            return last._replace(prompt=first.prompt, cached=first.cached)
        return last or first

    def tokens_so_far(self) -> Tokens:
        """Return what can be told of an answer that was cut: exact if its end had come, a prompt of 0 if unknown."""
        tail = b"".join(self._kept)
        found = self.tokens()
        if found is not None and found.finish_reason and found.prompt:
            return found
        if told := _PREDICTED.findall(tail):  # llama.cpp's own streams count along
            completion, prompt = map(int, told[-1])
            return Tokens(prompt, completion=completion)
        prompt, cached, completion = found[:3] if found is not None else (0, 0, 0)
        return Tokens(prompt, cached, max(completion, self.events))


class ManyObserver(Observer):
    """The same for a stream of several answers at once, each of which ends with counts of its own."""

    __slots__ = ("_sums", "_unread", "ended")

    def __init__(self, boundary: bytes) -> None:
        super().__init__(boundary)
        self._unread = b""
        self._sums = Tokens()
        self.ended = 0

    def see(self, data: bytes) -> None:
        """Take note of bytes on their way to the client."""
        super().see(data)
        *whole, self._unread = (self._unread + data).split(EVENT_END)
        for event in whole:
            if any(mark in event for mark in _UNFINISHED):
                continue
            if (found := read_tokens(event)) is not None:
                self.ended += 1
                self._sums = add(self._sums, found)

    def tokens(self) -> Tokens | None:
        """Return the sum of all counts that have come, or None."""
        return self._sums if self.ended else None

    def tokens_so_far(self) -> Tokens:
        """Return what can be told of answers that were cut: how long their prompts were is not known for all."""
        return Tokens(completion=max(self._sums.completion, self.events))


def add(one: Tokens, other: Tokens) -> Tokens:
    """Return the counts of two answers together; reason and speed are the last one's."""
    return other._replace(
        prompt=one.prompt + other.prompt,
        cached=one.cached + other.cached,
        completion=one.completion + other.completion,
    )


def read_tokens(data: bytes) -> Tokens | None:
    """Return the counts that stand last in the text of an answer, or None where there are none."""
    at = data.rfind(_TIMINGS)
    # The engine's own counts stand last; an object of that name further in front is a tool call's or a schema's.
    if at >= 0 and data.find(_USAGE, at) < 0:
        tokens = _from_timings(data, at + len(_TIMINGS) - 1)
        if tokens is not None:
            return tokens
    return read_usage(data)


def read_usage(data: bytes) -> Tokens | None:
    """Return the counts of the `usage` that stands last in the text of an answer, or None where there is none."""
    usage = _last_object(_USAGE, data)
    return None if usage is None else _from_usage(usage, _finish_reason(data))


def _from_timings(data: bytes, start: int) -> Tokens | None:
    """Read the flat object that begins at `start`. Every plain request passes here, so it makes few calls."""
    try:
        timings = orjson.loads(data[start : data.find(b"}", start) + 1])
        completion = timings["predicted_n"]
    except (orjson.JSONDecodeError, KeyError):
        return None
    get = timings.get
    prompt, cached, speed = get("prompt_n", 0), get("cache_n", 0), get("predicted_per_second")
    if not (type(prompt) is type(cached) is type(completion) is int and prompt >= 0 <= cached and completion >= 0):
        prompt, cached, completion = _whole(prompt), _whole(cached), _whole(completion)
    counts = (prompt + cached, cached, completion, True, _finish_reason(data), speed if type(speed) is float else None)
    return tuple.__new__(Tokens, counts)  # the class's own way takes two calls more


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
    return _whole(values.get(name, 0))


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0  # bool is an int, and no count


def chunk(data: bytes) -> bytes:
    """Return `data` in the framing of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def message_start(data: bytes, model: str, identity: str, *, framed: bool) -> bytes:
    """Return the event that must stand before `data`, the first of an Anthropic stream; empty where it is there.

    llama-server leaves it out when its first token is no whole character (many an emoji), and the official client
    then gives up. How long the prompt was is not told before the end, so it says 0.
    """
    if not _MIDDLE.match(data):
        return b""
    usage = {"input_tokens": 0, "output_tokens": 0}
    message: dict[str, object] = {"id": f"msg_{identity}", "type": "message", "role": "assistant", "model": model}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    event = b"event: message_start\ndata: %b\n\n" % orjson.dumps({"type": "message_start", "message": message})
    return chunk(event) if framed else event


KEEPALIVE_EVENT = b": keep-alive\n\n"
PINGS = frozenset({b":\n\n", b"3\r\n:\n\n\r\n"})
"""What the engine sends every half a minute while it has nothing to say."""
LAST_CHUNK = b"0\r\n\r\n"
