"""The order in which waiting requests are served: fair by tokens, by priority, with ageing, bounded."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from llama_gguf.gateway.scheduling.fair_queue import Entry, FairQueue
from llama_gguf.keys.record import Priority

Fairness = Literal["fair", "fifo"]


def queue(
    *,
    size: int = 0,
    per_key: int = 0,
    wait: float = 1e9,
    aging: float = 1e9,
    fairness: Fairness = "fair",
) -> FairQueue[str]:
    return FairQueue(
        max_size=size, max_size_per_key=per_key, max_wait_seconds=wait, aging_seconds=aging, fairness=fairness
    )


def served(waiting: FairQueue[str], count: int = 1000, now: float = 0.0) -> list[str]:
    order = []
    for _ in range(count):
        entry = waiting.pop(now)
        if entry is None:
            break
        order.append(entry.payload)
    return order


def test_one_key_is_served_in_order_of_arrival() -> None:
    waiting = queue()
    for index in range(5):
        waiting.push("a", 100 - index, "normal", f"a{index}", 0.0)
    assert served(waiting) == ["a0", "a1", "a2", "a3", "a4"]
    assert len(waiting) == 0
    assert waiting.pop(0.0) is None


def test_keys_with_equal_requests_take_turns() -> None:
    waiting = queue()
    for key in "aab", "ab":
        for letter in key:
            waiting.push(letter, 10, "normal", letter, 0.0)
    assert "".join(served(waiting)) == "ababa"


def test_keys_share_by_tokens_not_by_requests() -> None:
    waiting = queue()
    for _ in range(50):
        waiting.push("big", 400, "normal", "big", 0.0)
        waiting.push("small", 100, "normal", "small", 0.0)
    first = Counter(served(waiting, 25))
    assert first == {"small": 20, "big": 5}


def test_a_newcomer_neither_owes_nor_is_owed() -> None:
    waiting = queue()
    for _ in range(100):
        waiting.push("old", 100, "normal", "old", 0.0)
    served(waiting, 50)
    for _ in range(100):
        waiting.push("new", 100, "normal", "new", 0.0)
    assert Counter(served(waiting, 20)) == {"old": 10, "new": 10}


def test_a_request_that_asks_for_nothing_still_counts() -> None:
    waiting = queue()
    for _ in range(10):
        waiting.push("free", 0, "normal", "free", 0.0)
    waiting.push("paying", 5, "normal", "paying", 0.0)
    assert served(waiting).index("paying") <= 5


def test_a_higher_class_goes_first() -> None:
    waiting = queue()
    order: tuple[Priority, ...] = ("low", "normal", "high")
    for priority in order:
        waiting.push("a", 1, priority, priority, 0.0)
    assert served(waiting) == ["high", "normal", "low"]


def test_a_low_request_rises_with_age() -> None:
    waiting = queue(aging=30.0)
    waiting.push("low", 1, "low", "low", 0.0)
    for second in range(120):
        waiting.push("high", 1, "high", "high", float(second))
        waiting.push("high", 1, "high", "high", float(second))
        if served(waiting, 1, float(second)) == ["low"]:
            break
    else:
        pytest.fail("it starved")
    assert 60 <= second <= 62  # one class after 30 s, the other after 60


def test_a_request_that_is_due_twice_over_rises_twice() -> None:
    waiting = queue(aging=30.0)
    waiting.push("low", 1, "low", "low", 0.0)
    waiting.push("normal", 1, "normal", "normal", 59.0)
    assert served(waiting, 1, 61.0) == ["low"]


def test_one_that_has_not_aged_enough_stays_where_it_is() -> None:
    waiting = queue(aging=30.0)
    waiting.push("low", 1, "low", "low", 0.0)
    waiting.push("normal", 1000, "normal", "normal", 29.0)
    assert served(waiting, 1, 29.9) == ["normal"]


def test_fifo_knows_no_keys_and_no_classes() -> None:
    waiting = queue(fairness="fifo")
    for index, (key, priority) in enumerate([("a", "low"), ("a", "normal"), ("b", "high"), ("a", "high")]):
        waiting.push(key, 1000 - index, priority, str(index), 0.0)  # type: ignore[arg-type]
    assert served(waiting) == ["0", "1", "2", "3"]


def test_bounds() -> None:
    waiting = queue(size=3, per_key=2)
    waiting.push("a", 1, "normal", "", 0.0)
    assert waiting.full_for("a") is None
    waiting.push("a", 1, "high", "", 0.0)
    assert waiting.full_for("a") == "key"
    assert waiting.full_for("b") is None
    waiting.push("b", 1, "normal", "", 0.0)
    assert waiting.full_for("c") == "queue"
    waiting.pop(0.0)
    assert waiting.full_for("c") is None


def test_removing_frees_the_place_and_is_harmless_twice() -> None:
    waiting = queue(per_key=2)
    first = waiting.push("a", 10, "normal", "first", 0.0)
    second = waiting.push("a", 20, "normal", "second", 0.0)
    assert waiting.waiting_of("a") == 2
    assert waiting.remove(first)
    assert not waiting.remove(first)
    assert waiting.waiting_of("a") == 1
    assert served(waiting) == ["second"]
    assert not waiting.remove(second)


def test_removing_a_head_does_not_charge_its_key() -> None:
    waiting = queue()
    head = waiting.push("a", 1000, "normal", "gone", 0.0)
    waiting.push("a", 10, "normal", "a", 0.0)
    waiting.push("b", 20, "normal", "b", 0.0)
    waiting.remove(head)
    assert served(waiting) == ["a", "b"]


def test_expiry_takes_the_oldest_of_any_class() -> None:
    waiting = queue(wait=10.0)
    waiting.push("a", 1, "low", "old", 0.0)
    waiting.push("b", 1, "high", "young", 5.0)
    assert waiting.next_deadline() == 10.0
    assert [entry.payload for entry in waiting.expire(9.9)] == []
    assert [entry.payload for entry in waiting.expire(10.0)] == ["old"]
    assert waiting.next_deadline() == 15.0
    assert served(waiting, now=11.0) == ["young"]
    assert waiting.next_deadline() is None


def test_a_refund_moves_a_waiting_key_up_and_no_further_than_now() -> None:
    waiting = queue()
    for _ in range(3):
        waiting.push("big", 1000, "normal", "big", 0.0)
        waiting.push("small", 300, "normal", "small", 0.0)
    assert served(waiting, 4) == ["small", "small", "small", "big"]
    for _ in range(3):
        waiting.push("small", 300, "normal", "small", 0.0)
    entry = waiting.push("other", 1, "normal", "other", 0.0)
    waiting.refund(entry, 10_000)  # alone of its key, it is due at once and cannot be more than that
    assert served(waiting, 1) == ["other"]
    waiting.refund(entry, 10_000)  # nobody of this key waits: nothing happens
    assert served(waiting, 1) == ["small"]


class _Load(RuleBasedStateMachine):
    """Random pushes, pops, hang-ups, refunds and pauses, against a plain list as the model."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waiting: FairQueue[int] = FairQueue(
            max_size=12, max_size_per_key=5, max_wait_seconds=50.0, aging_seconds=7.0, fairness="fair"
        )
        self.model: dict[int, Entry[int]] = {}
        self.pops_since: dict[int, int] = {}
        self.number = 0

    @rule(
        target=entries,
        key=st.sampled_from("abcd"),
        cost=st.integers(0, 500),
        priority=st.sampled_from(("high", "normal", "low")),
    )
    def push(self, key: str, cost: int, priority: Priority) -> Entry[int] | None:
        same = [entry for entry in self.model.values() if entry.key_id == key]
        expected = "queue" if len(self.model) >= 12 else "key" if len(same) >= 5 else None
        assert self.waiting.full_for(key) == expected
        if expected is not None:
            return None
        self.number += 1
        entry = self.waiting.push(key, cost, priority, self.number, self.now)
        self.model[self.number] = entry
        return entry

    @rule()
    def pop(self) -> None:
        entry = self.waiting.pop(self.now)
        assert (entry is None) == (not self.model)
        if entry is not None:
            # Of its key and class, none that came into the class before it is still waiting.
            older = [
                other
                for other in self.model.values()
                if (other.key_id, other.level) == (entry.key_id, entry.level) and other.entered < entry.entered
            ]
            assert not older
            # Nothing that has aged into the highest class is passed over by a lower one.
            assert entry.level == min(other.level for other in self.model.values())
            assert self.model.pop(entry.payload) is entry

    @rule(entry=entries)
    def remove(self, entry: Entry[int] | None) -> None:
        if entry is not None:
            assert self.waiting.remove(entry) == (self.model.pop(entry.payload, None) is not None)

    @rule(entry=entries, tokens=st.integers(-100, 600))
    def refund(self, entry: Entry[int] | None, tokens: int) -> None:
        if entry is not None and not entry.waiting:
            self.waiting.refund(entry, tokens)

    @rule(seconds=st.floats(0.0, 20.0))
    def pause(self, seconds: float) -> None:
        self.now += seconds
        expired = self.waiting.expire(self.now)
        assert {entry.payload for entry in expired} == {
            number for number, entry in self.model.items() if entry.deadline <= self.now
        }
        for entry in expired:
            del self.model[entry.payload]

    @precondition(lambda self: self.model)
    @rule()
    def drain(self) -> None:
        """Whatever waits is served in the end."""
        assert {entry.payload for entry in iter(lambda: self.waiting.pop(self.now), None)} == set(self.model)
        self.model.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.waiting) == len(self.model)
        for key in "abcd":
            assert self.waiting.waiting_of(key) == sum(entry.key_id == key for entry in self.model.values())
        deadlines = [entry.deadline for entry in self.model.values()]
        assert self.waiting.next_deadline() == min(deadlines, default=None)


TestLoad = _Load.TestCase
TestLoad.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_no_key_of_one_class_starves_however_much_others_send() -> None:
    """Until a waiting request is served, every other key gets its cost in tokens and a request more, at most."""
    waiting = queue()
    waiting.push("victim", 500, "normal", "victim", 0.0)
    tokens = Counter[str]()
    for _ in range(10_000):
        for key in "abc":
            if not waiting.waiting_of(key):
                waiting.push(key, 50, "normal", key, 0.0)
        (who,) = served(waiting, 1)
        if who == "victim":
            break
        tokens[who] += 50
    else:
        pytest.fail("it starved")
    assert max(tokens.values()) <= 550
