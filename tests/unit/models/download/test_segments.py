"""The segments of a download: at any time each byte is in one state, and none is lost or counted twice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llama_gguf.models.download.segments import Segment, SegmentTracker, Span, covered, gaps, merged, prefix_length

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)
MB = 1_000_000


def members(spans: list[Span] | tuple[Span, ...]) -> set[int]:
    return {byte for start, end in spans for byte in range(start, end)}


@given(SPANS)
def test_merged_spans_hold_the_same_bytes_and_do_not_touch(spans: list[Span]) -> None:
    result = merged(spans)
    assert members(result) == members(spans)
    assert covered(result) == len(members(spans))
    assert all(before[1] < after[0] for before, after in itertools.pairwise(result))
    assert merged(result) == result
    assert prefix_length(result) == next(byte for byte in range(62) if byte not in members(spans))


@given(SPANS, st.integers(60, 70))
def test_gaps_are_what_is_missing(spans: list[Span], size: int) -> None:
    missing = list(gaps(merged(spans), size))
    assert members(missing) == set(range(size)) - members(spans)
    assert list(merged(missing)) == missing


class Tracking(RuleBasedStateMachine):
    """Connections take, write and give back in any order, at any speed."""

    @initialize(size=st.integers(1, 5000), done=SPANS, connections=st.integers(1, 5), min_bytes=st.integers(1, 700))
    def begin(self, size: int, done: list[Span], connections: int, min_bytes: int) -> None:
        known = merged((start, min(end, size)) for start, end in done if start < size)
        self.size, self.now = size, 0.0
        self.written = members(known)
        self.tracker = SegmentTracker(size, known, connections=connections, min_bytes=min_bytes)
        self.in_flight: list[Segment] = []

    @rule(seconds=st.floats(0.01, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(rate=st.floats(0, 1e9))
    def take(self, rate: float) -> None:
        segment = self.tracker.take(self.now, rate)
        if segment:
            assert segment.remaining > 0
            assert not set(range(segment.position, segment.end)) & self.written
            self.in_flight.append(segment)
        elif not self.in_flight:
            assert self.tracker.complete

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 100), count=st.integers(0, 900))
    def write(self, which: int, count: int) -> None:
        segment = self.in_flight[which % len(self.in_flight)]
        before = segment.position
        self.tracker.record_written(segment, count)  # more than is left does not count
        self.written |= set(range(before, segment.position))

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 100))
    def give_back(self, which: int) -> None:
        self.tracker.release(self.in_flight.pop(which % len(self.in_flight)))

    @invariant()
    def each_byte_is_in_one_place(self) -> None:
        if not hasattr(self, "tracker"):
            return
        fetched = [set(range(segment.position, segment.end)) for segment in self.in_flight]
        assert members(self.tracker.spans()) == self.written
        assert self.tracker.bytes_done == len(self.written)
        assert sum(map(len, fetched)) + len(self.written) + self.tracker.bytes_pending == self.size
        assert len(set().union(self.written, *fetched)) == len(self.written) + sum(map(len, fetched))
        assert self.tracker.complete == (len(self.written) == self.size)

    def teardown(self) -> None:
        """Whatever happened, patience gets the whole file."""
        if not hasattr(self, "tracker"):
            return
        for segment in self.in_flight:
            self.tracker.release(segment)
        while taken := self.tracker.take(self.now):
            self.tracker.record_written(taken, taken.remaining)
            self.tracker.release(taken)
        assert self.tracker.complete
        assert self.tracker.spans() == ((0, self.size),)


TestTracking = Tracking.TestCase
TestTracking.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_fast_connections_get_long_segments_and_the_end_short_ones() -> None:
    tracker = SegmentTracker(1000 * MB, connections=8, min_bytes=16 * MB)
    assert tracker.first(0.0).remaining == 16 * MB
    lengths = []
    while segment := tracker.take(0.0, 50e6):
        lengths.append(segment.remaining)
    assert lengths[0] == pytest.approx(984 * MB / 16, abs=1)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-2] == 16 * MB


def test_one_connection_gets_all_there_is() -> None:
    tracker = SegmentTracker(1000 * MB, [(0, 10), (20, 30)])
    assert [(s.start, s.end) for s in (tracker.first(0.0), tracker.take(0.0)) if s] == [(10, 20), (30, 1000 * MB)]
    assert tracker.bytes_pending == 0


def test_at_the_end_the_slow_share_with_the_fast() -> None:
    tracker = SegmentTracker(100 * MB, connections=2, min_bytes=100 * MB)
    slow = tracker.first(0.0)
    assert tracker.take(0.5, 9e6) is None  # too young to be judged
    tracker.record_written(slow, 10 * MB)
    thief = tracker.take(10.0, 9e6)  # the slow one does 1 MB/s
    assert thief is not None
    assert (slow.remaining, thief.remaining) == (9 * MB, 81 * MB)
    assert slow.seconds_left(10.0) == pytest.approx(9)
    tracker.record_written(slow, 50 * MB)
    assert slow.remaining == 0


def test_one_that_stands_still_loses_everything() -> None:
    tracker = SegmentTracker(MB, connections=2, min_bytes=MB)
    stuck = tracker.first(0.0)
    thief = tracker.take(2.0, 1e6)
    assert thief is not None
    assert (stuck.remaining, thief.remaining) == (0, MB)
    assert tracker.take(2.0, 1e6) is None
    tracker.release(stuck)
    assert tracker.bytes_pending == 0


@pytest.mark.parametrize(("now", "rate", "helps"), [(0.9, 50e6, False), (1.1, 1.5e6, False), (1.1, 50e6, True)])
def test_one_that_holds_up_the_digest_is_helped_at_once(now: float, rate: float, *, helps: bool) -> None:
    tracker = SegmentTracker(1000 * MB, connections=2, min_bytes=16 * MB)
    slow = tracker.first(0.0)
    tracker.record_written(slow, MB // 2)  # and needs half a minute more, but younger than a second it is not judged
    segment = tracker.take(now, rate)
    assert segment is not None
    assert (slow.end < 16 * MB) is helps
    assert (segment.end == 16 * MB) is helps


def test_unknown_size_ends_where_the_bytes_end() -> None:
    tracker = SegmentTracker(None)
    segment = tracker.first(0.0)
    tracker.record_written(segment, 5)
    assert (tracker.complete, tracker.size) == (False, None)
    tracker.seal()
    assert (tracker.complete, tracker.size, tracker.bytes_pending) == (True, 5, 0)
    with pytest.raises(ValueError, match="nothing is pending"):
        tracker.first(0.0)
