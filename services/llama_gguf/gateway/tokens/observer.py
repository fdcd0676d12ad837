"""Keeps the first and last bytes of a response while it is relayed, which contain its token counts.

A few kilobytes of each, by reference where possible, and parsed once, at the end.
"""

from __future__ import annotations

import re

from llama_gguf.gateway.tokens.counts import Tokens, add, read_tokens

TAIL_BYTES = 8192
HEAD_BYTES = 2048
EVENT_END = b"\n\n"
EVENT_END_FRAMED = b"\n\n\r\n"
"""The end of an event that is also the end of a chunk. The engine sends complete events in each chunk, and raw newlines
cannot occur inside an event's JSON, so in framed bytes this is always both."""
_PREDICTED = re.compile(rb'"tokens_predicted":(\d+),"tokens_evaluated":(\d+)')
_UNFINISHED = (b'"finish_reason":null', b'"stop":false')


class Observer:
    """Observes the bytes of one response. Costs an append and a count for each read.

    `boundary` is the end of a chunk if the bytes are framed, else the end of an event.
    """

    __slots__ = ("_boundary", "_head", "_tail", "_tail_size", "events", "size")

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._head = b""
        self._tail: list[bytes] = []
        self._tail_size = 0
        self.events = 0  # usually one for each token
        self.size = 0

    def observe(self, data: bytes) -> None:
        """Observe bytes that are passed on to the client."""
        if not self.size:
            self._head = data[:HEAD_BYTES]
        self.size += len(data)
        self.events += data.count(self._boundary)
        self._tail.append(data)
        self._tail_size += len(data)
        if self._tail_size > 4 * TAIL_BYTES:
            tail = b"".join(self._tail)[-TAIL_BYTES:]
            self._tail = [tail]
            self._tail_size = len(tail)

    def tokens(self) -> Tokens | None:
        """Return the engine's counts, or None if the response (so far) reports none.

        Anthropic's streams report the prompt's tokens in their first event and the completion's in their last.
        """
        last, first = read_tokens(b"".join(self._tail)), read_tokens(self._head)
        if last is not None and first is not None and not last.prompt:
            return last._replace(prompt=first.prompt, cached=first.cached)
        return last or first

    def tokens_so_far(self) -> Tokens:
        """Return the known counts of an incomplete response: exact if its end had arrived, a prompt of 0 if unknown."""
        tail = b"".join(self._tail)
        found = self.tokens()
        if found is not None and found.finish_reason and found.prompt:
            return found
        if reported := _PREDICTED.findall(tail):  # llama.cpp's own streams report counts in each event
            completion, prompt = map(int, reported[-1])
            return Tokens(prompt, completion=completion)
        prompt, cached, completion = found[:3] if found is not None else (0, 0, 0)
        return Tokens(prompt, cached, max(completion, self.events))


class ManyObserver(Observer):
    """The same for a stream of several choices, each of which ends with its own counts."""

    __slots__ = ("_incomplete", "_sums", "ended")

    def __init__(self, boundary: bytes) -> None:
        super().__init__(boundary)
        self._incomplete = b""
        self._sums = Tokens()
        self.ended = 0

    def observe(self, data: bytes) -> None:
        """Observe bytes that are passed on to the client."""
        super().observe(data)
        *complete, self._incomplete = (self._incomplete + data).split(EVENT_END)
        for event in complete:
            if any(mark in event for mark in _UNFINISHED):
                continue
            if (found := read_tokens(event)) is not None:
                self.ended += 1
                self._sums = add(self._sums, found)

    def tokens(self) -> Tokens | None:
        """Return the sum of all counts reported so far, or None."""
        return self._sums if self.ended else None

    def tokens_so_far(self) -> Tokens:
        """Return the known counts of an incomplete response: the prompts' lengths are not known for all choices."""
        return Tokens(completion=max(self._sums.completion, self.events))
