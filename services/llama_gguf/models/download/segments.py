"""Which bytes of a file are here, who fetches which, and what is fetched next. Pure: no clock, no disk, no network.

A file is a row of bytes from 0 to its size. At any time each byte is in exactly one place: done, in a segment that a
connection is fetching, or pending. The lowest pending bytes go first, so that a digest can follow close behind.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""First byte, and the one after the last."""

_LARGEST = 8  # times the smallest segment
_SEGMENT_SECONDS = 2.0  # what a connection fetches at a time: long against the wait for each answer's first byte
_PENDING_SHARE = 2  # towards the end a segment is at most 1/2 of each connection's share of what is pending
_MATURE_SECONDS = 1.0  # younger requests say nothing about their speed
_WORTH_SECONDS = 1.0  # what takes less to its end is not worth another request
_LAGGING_SECONDS = 15.0  # what takes longer holds up the digest, so that somebody much faster takes over at once
_MUCH_FASTER = 4.0
_CRUMB_BYTES = 64 * 1024
_ENDLESS = 2**63 - 1


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same bytes in as few spans as possible, in order."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return tuple(result)


def covered(spans: Iterable[Span]) -> int:
    """Return how many bytes `spans` (without overlaps) hold."""
    return sum(end - start for start, end in spans)


def front(spans: tuple[Span, ...]) -> int:
    """Return how many bytes from the first one on are in `spans`, which are merged."""
    return spans[0][1] if spans and spans[0][0] == 0 else 0


def gaps(spans: tuple[Span, ...], size: int | None) -> Iterator[Span]:
    """Yield what `spans`, which are merged, leave out; the last gap of a file of unknown size has no real end."""
    position = 0
    for start, end in spans:
        if position < start:
            yield position, start
        position = end
    if position < (size if size is not None else _ENDLESS):
        yield position, size if size is not None else _ENDLESS


class Segment:
    """A stretch that one connection fetches: bytes before `position` are here, those before `end` are wanted."""

    __slots__ = ("end", "position", "start", "taken_at")

    def __init__(self, start: int, end: int, now: float) -> None:
        self.start = start
        self.position = start
        self.end = end
        self.taken_at = now

    @property
    def remaining(self) -> int:
        """Bytes still to come; somebody faster may take them over at any time."""
        return self.end - self.position

    def rate(self, now: float) -> float:
        """Return bytes per second since it was taken, the wait for the first one included."""
        return (self.position - self.start) / max(now - self.taken_at, 0.001)

    def seconds_left(self, now: float) -> float:
        """Return how long the rest takes at the present rate."""
        rate = self.rate(now)
        return self.remaining / rate if rate else float("inf")


class Ledger:
    """The books of one file. Times are seconds of any clock; rates are bytes per second, 0 where unknown.

    One connection gets all there is at a time; of more, each gets at least `smallest` bytes, while there are so many.
    """

    def __init__(self, size: int | None, done: Iterable[Span] = (), *, connections: int = 1, smallest: int = 1) -> None:
        self.size = size
        self._smallest = smallest
        self._connections = connections
        self._done = merged(done)
        self._pending: list[Span] = list(gaps(self._done, size))  # in order, so a heap already
        self._flying: list[Segment] = []
        self.bytes_done = covered(self._done)

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return self.bytes_done == self.size

    @property
    def bytes_pending(self) -> int:
        """Bytes that nobody is fetching."""
        return covered(self._pending)

    def spans(self) -> tuple[Span, ...]:
        """Return what is here."""
        return merged([*self._done, *((segment.start, segment.position) for segment in self._flying)])

    def first(self, now: float) -> Segment:
        """Return the segment at the first gap, for the connection that asked before anything was known."""
        segment = self._from_pending(now, 0.0)
        if segment is None:
            raise ValueError("nothing is pending")
        self._flying.append(segment)
        return segment

    def take(self, now: float, rate: float = 0.0) -> Segment | None:
        """Return what a connection that is free, and has done `rate` so far, should fetch; None if not worth it."""
        segment = self._from_laggard(now, rate) or self._from_pending(now, rate) or self._from_slowest(now, rate)
        if segment:
            self._flying.append(segment)
        return segment

    def wrote(self, segment: Segment, count: int) -> None:
        """Note that the next `count` bytes of `segment` are on disk; those that are somebody else's do not count."""
        count = min(count, segment.remaining)
        segment.position += count
        self.bytes_done += count

    def release(self, segment: Segment) -> None:
        """Note that nobody fetches `segment` any more; what is missing of it is pending again."""
        self._flying.remove(segment)
        self._done = merged([*self._done, (segment.start, segment.position)])
        if segment.remaining:
            heapq.heappush(self._pending, (segment.position, segment.end))

    def seal(self) -> None:
        """Note that a file of unknown size ends where its bytes end."""
        self.size = self.bytes_done
        self._pending.clear()

    def _from_pending(self, now: float, rate: float) -> Segment | None:
        if not self._pending:
            return None
        start, end = self._pending[0]
        length = end - start if self._connections == 1 else self._length(rate)
        heapq.heappop(self._pending)
        if start + length < end:
            heapq.heappush(self._pending, (start + length, end))
        return Segment(start, min(start + length, end), now)

    def _length(self, rate: float) -> int:
        wanted = max(self._smallest, min(self._smallest * _LARGEST, int(rate * _SEGMENT_SECONDS)))
        return min(wanted, max(self._smallest, self.bytes_pending // (_PENDING_SHARE * self._connections)))

    def _from_laggard(self, now: float, rate: float) -> Segment | None:
        victim = self._slowest(now, _LAGGING_SECONDS)
        if victim is None or rate <= _MUCH_FASTER * victim.rate(now):
            return None
        return _rob(victim, now, rate)

    def _from_slowest(self, now: float, rate: float) -> Segment | None:
        victim = self._slowest(now, _WORTH_SECONDS)
        return _rob(victim, now, rate) if victim else None

    def _slowest(self, now: float, at_least: float) -> Segment | None:
        """Return the segment whose end is farthest away in time, if that is more than `at_least` seconds."""
        mature = [s for s in self._flying if s.remaining and now - s.taken_at >= _MATURE_SECONDS]
        slowest = max(mature, key=lambda segment: segment.seconds_left(now), default=None)
        return slowest if slowest and slowest.seconds_left(now) > at_least else None


def _rob(victim: Segment, now: float, rate: float) -> Segment:
    """Take so much off the end of `victim` that both come to their ends at the same time."""
    slow = victim.rate(now)
    share = slow / (slow + rate) if rate else 0.5
    kept = int(victim.remaining * share)
    if kept < _CRUMB_BYTES:
        kept = 0
    segment = Segment(victim.position + kept, victim.end, now)
    victim.end = segment.start
    return segment
