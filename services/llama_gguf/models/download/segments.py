"""Which bytes of a file are done, in flight or pending, and what is fetched next. Pure: no clock, disk or network.

At any time each byte of the file is in exactly one state: done, in a segment that a connection is fetching, or pending.
The lowest pending bytes go first, so that the digest can be computed during the download.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""Start and end of a range of bytes; the end is exclusive."""

_MAX_SEGMENT_FACTOR = 8  # times the minimum segment
_SEGMENT_SECONDS = 2.0  # duration of one request: long compared to the wait for the first byte of each response
_PENDING_SHARE = 2  # towards the end a segment is at most 1/2 of each connection's share of the pending bytes
_MIN_AGE_SECONDS = 1.0  # the rate of younger requests is not known yet
_MIN_STEAL_SECONDS = 1.0  # what is finished earlier is not worth another request
_LAGGING_SECONDS = 15.0  # what takes longer delays the digest, so a much faster connection steals from it at once
_MUCH_FASTER = 4.0
_MIN_REMAINDER_BYTES = 64 * 1024
_UNKNOWN_END = 2**63 - 1


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same bytes in as few spans as possible, sorted."""
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
    """Return how many bytes `spans`, which do not overlap, contain."""
    return sum(end - start for start, end in spans)


def prefix_length(spans: tuple[Span, ...]) -> int:
    """Return how many contiguous bytes from the start of the file are in `spans`, which are merged."""
    return spans[0][1] if spans and spans[0][0] == 0 else 0


def gaps(spans: tuple[Span, ...], size: int | None) -> Iterator[Span]:
    """Yield the gaps between `spans`, which are merged; the last gap of a file of unknown size ends at 2^63."""
    position = 0
    for start, end in spans:
        if position < start:
            yield position, start
        position = end
    end_of_file = size if size is not None else _UNKNOWN_END
    if position < end_of_file:
        yield position, end_of_file


class Segment:
    """A range that one connection fetches: bytes before `position` are done, those up to `end` are still to come."""

    __slots__ = ("end", "position", "start", "taken_at")

    def __init__(self, start: int, end: int, now: float) -> None:
        self.start = start
        self.position = start
        self.end = end
        self.taken_at = now

    @property
    def remaining(self) -> int:
        """Bytes still to come; a faster connection can steal them at any time."""
        return self.end - self.position

    def rate(self, now: float) -> float:
        """Return bytes per second since it was taken, including the wait for the first byte."""
        return (self.position - self.start) / max(now - self.taken_at, 0.001)

    def seconds_left(self, now: float) -> float:
        """Return how long the rest takes at the current rate."""
        rate = self.rate(now)
        return self.remaining / rate if rate else float("inf")


class SegmentTracker:
    """The state of every byte of one file. Times are seconds of any clock; rates are bytes per second, 0 if unknown.

    A single connection gets everything at once; of several, each gets at least `min_bytes`, while there are that many.
    """

    def __init__(
        self, size: int | None, done: Iterable[Span] = (), *, connections: int = 1, min_bytes: int = 1
    ) -> None:
        self.size = size
        self._min_bytes = min_bytes
        self._connections = connections
        self._done = merged(done)
        self._pending: list[Span] = list(gaps(self._done, size))  # in order, so a heap already
        self._in_flight: list[Segment] = []
        self.bytes_done = covered(self._done)

    @property
    def complete(self) -> bool:
        """Whether every byte is done."""
        return self.bytes_done == self.size

    @property
    def bytes_pending(self) -> int:
        """Bytes that no connection is fetching."""
        return covered(self._pending)

    def spans(self) -> tuple[Span, ...]:
        """Return the bytes that are done."""
        return merged([*self._done, *((segment.start, segment.position) for segment in self._in_flight)])

    def first(self, now: float) -> Segment:
        """Return the segment at the first gap, for the connection that sent its request before anything was known."""
        segment = self._from_pending(now, 0.0)
        if segment is None:
            raise ValueError("nothing is pending")
        self._in_flight.append(segment)
        return segment

    def take(self, now: float, rate: float = 0.0) -> Segment | None:
        """Return what an idle connection with this `rate` should fetch; None if not worth a request."""
        segment = self._from_laggard(now, rate) or self._from_pending(now, rate) or self._from_slowest(now, rate)
        if segment:
            self._in_flight.append(segment)
        return segment

    def record_written(self, segment: Segment, count: int) -> None:
        """Record that the next `count` bytes of `segment` are on disk; those that were stolen do not count."""
        count = min(count, segment.remaining)
        segment.position += count
        self.bytes_done += count

    def release(self, segment: Segment) -> None:
        """Record that `segment` is no longer being fetched; its missing bytes are pending again."""
        self._in_flight.remove(segment)
        self._done = merged([*self._done, (segment.start, segment.position)])
        if segment.remaining:
            heapq.heappush(self._pending, (segment.position, segment.end))

    def seal(self) -> None:
        """Record that a file of unknown size ends where its bytes end."""
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
        wanted = max(self._min_bytes, min(self._min_bytes * _MAX_SEGMENT_FACTOR, int(rate * _SEGMENT_SECONDS)))
        return min(wanted, max(self._min_bytes, self.bytes_pending // (_PENDING_SHARE * self._connections)))

    def _from_laggard(self, now: float, rate: float) -> Segment | None:
        laggard = self._slowest(now, _LAGGING_SECONDS)
        if laggard is None or rate <= _MUCH_FASTER * laggard.rate(now):
            return None
        return _steal(laggard, now, rate)

    def _from_slowest(self, now: float, rate: float) -> Segment | None:
        slowest = self._slowest(now, _MIN_STEAL_SECONDS)
        return _steal(slowest, now, rate) if slowest else None

    def _slowest(self, now: float, min_seconds: float) -> Segment | None:
        """Return the segment that finishes last, if that takes more than `min_seconds`."""
        measured = [s for s in self._in_flight if s.remaining and now - s.taken_at >= _MIN_AGE_SECONDS]
        slowest = max(measured, key=lambda segment: segment.seconds_left(now), default=None)
        return slowest if slowest and slowest.seconds_left(now) > min_seconds else None


def _steal(segment: Segment, now: float, rate: float) -> Segment:
    """Return a new segment of so much of the end of `segment` that both finish at the same time."""
    slow = segment.rate(now)
    share = slow / (slow + rate) if rate else 0.5
    remainder = int(segment.remaining * share)
    if remainder < _MIN_REMAINDER_BYTES:
        remainder = 0
    stolen = Segment(segment.position + remainder, segment.end, now)
    segment.end = stolen.start
    return stolen
