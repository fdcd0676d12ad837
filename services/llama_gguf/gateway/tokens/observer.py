"""Keeps the ends of an answer that passes, where its token counts stand. Parses once, at the end.

The first and last few kilobytes are kept, by reference where possible.
"""

from __future__ import annotations

import re

from llama_gguf.gateway.tokens.counts import Tokens, add, read_tokens

TAIL_BYTES = 8192
HEAD_BYTES = 2048
EVENT_END = b"\n\n"
EVENT_END_FRAMED = b"\n\n\r\n"
"""The end of an event that is also the end of a chunk. The engine puts whole events into each chunk, and raw newlines
cannot occur inside an event's JSON, so among framed bytes this is always both."""
_PREDICTED = re.compile(rb'"tokens_predicted":(\d+),"tokens_evaluated":(\d+)')
_UNFINISHED = (b'"finish_reason":null', b'"stop":false')


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
