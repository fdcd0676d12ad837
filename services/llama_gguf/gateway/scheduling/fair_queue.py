"""The waiting requests and the order in which they are served. Pure; the caller passes the time to every call.

Three levels (high, normal, low), each served only when the ones above are empty; an entry that has waited
`aging_seconds` moves up a level, so nothing starves. An entry may need several slots; while those are not free, nothing
behind it is served either, so that small requests cannot starve a large one.

Within a level the keys share tokens by deficit round robin. It is computed without iterating over rounds: each key has
a virtual clock, the round (of one token per key) in which its deficit covers its next entry, and the key with the
smallest clock is served. A key that returns after a pause starts at the level's current round: it has neither credit
nor debt.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from llama_gguf.keys.record import Priority

LEVELS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One waiting request. `payload` belongs to the caller, the rest to the queue."""

    key_id: str
    cost: int
    payload: T
    since: float
    deadline: float
    level: int
    entered: float  # when it entered its current level
    slots: int  # that it needs at once
    waiting: bool = True


class _Flow(Generic[T]):
    """The entries of one key in one level. `paid`: the round up to which the key has been served."""

    __slots__ = ("due", "entries", "paid", "version")

    def __init__(self, paid: float) -> None:
        self.entries: OrderedDict[Entry[T], None] = OrderedDict()
        self.paid = paid
        self.due = paid
        self.version = 0

    @property
    def head(self) -> Entry[T]:
        return next(iter(self.entries))


class _Level(Generic[T]):
    """One priority level: its keys, by the round in which each is due."""

    __slots__ = ("aging", "flows", "heap", "round", "sequence")

    def __init__(self) -> None:
        self.flows: dict[str, _Flow[T]] = {}
        self.heap: list[tuple[float, int, int, str]] = []  # due, sequence, version, key; stale ones are skipped
        self.round = 0.0
        self.sequence = 0
        self.aging: OrderedDict[Entry[T], None] = OrderedDict()  # by the time of entry into this level

    def add(self, name: str, entry: Entry[T]) -> None:
        flow = self.flows.get(name)
        if flow is None:
            flow = self.flows[name] = _Flow(self.round)
        flow.entries[entry] = None
        self.aging[entry] = None
        if len(flow.entries) == 1:
            self._schedule(name, flow)

    def _schedule(self, name: str, flow: _Flow[T]) -> None:
        flow.due = flow.paid + flow.head.cost
        flow.version += 1
        self.sequence += 1
        heapq.heappush(self.heap, (flow.due, self.sequence, flow.version, name))

    def discard(self, name: str, entry: Entry[T]) -> None:
        flow = self.flows[name]
        was_head = flow.head is entry
        del flow.entries[entry]
        del self.aging[entry]
        if not flow.entries:
            del self.flows[name]
        elif was_head:
            self._schedule(name, flow)

    def take(self, free: int) -> Entry[T] | None:
        """Remove and return the entry that is due, None if there is none or it needs more than `free` slots."""
        while self.heap:
            due, _, version, name = self.heap[0]
            flow = self.flows.get(name)
            if flow is None or flow.version != version or flow.due != due:
                heapq.heappop(self.heap)
                continue
            entry = flow.head
            if entry.slots > free:
                return None
            heapq.heappop(self.heap)
            self.round = max(self.round, due)
            flow.paid = due
            self.discard(name, entry)
            return entry
        return None

    def refund(self, name: str, tokens: int) -> None:
        flow = self.flows.get(name)
        if flow is not None:
            flow.paid = max(self.round - flow.head.cost, flow.paid - tokens)
            self._schedule(name, flow)


class FairQueue(Generic[T]):
    """A bounded queue, fair between keys. Sizes of 0 mean unlimited. `now` must be monotonic."""

    def __init__(
        self,
        *,
        max_size: int,
        max_size_per_key: int,
        max_wait_seconds: float,
        aging_seconds: float,
        fairness: Literal["fair", "fifo"] = "fair",
    ) -> None:
        self._max_size = max_size
        self._max_size_per_key = max_size_per_key
        self._max_wait = max_wait_seconds
        self._aging = aging_seconds
        self._fifo = fairness == "fifo"
        self._levels: list[_Level[T]] = [_Level() for _ in ([0] if self._fifo else LEVELS)]
        self._all: OrderedDict[Entry[T], None] = OrderedDict()  # in order of arrival, hence of the deadlines
        self._per_key: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def waiting_of(self, key_id: str) -> int:
        """Return the number of waiting entries of one key."""
        return self._per_key[key_id]

    def full_for(self, key_id: str) -> Literal["queue", "key"] | None:
        """Return which maximum size, if any, prevents another entry of this key."""
        if self._max_size and len(self._all) >= self._max_size:
            return "queue"
        if self._max_size_per_key and self._per_key[key_id] >= self._max_size_per_key:
            return "key"
        return None

    def give_way(self, key_id: str) -> Entry[T] | None:
        """Remove and return the newest entry of the key that has most in a full queue, to make room for another key.

        Returns None if no key has more than `key_id` would have then: its own newest request is the one to refuse.
        """
        name, most = max(self._per_key.items(), key=lambda item: item[1])
        if most <= self._per_key[key_id] + 1:
            return None
        entry = next(entry for entry in reversed(self._all) if entry.key_id == name)
        self.remove(entry)
        return entry

    def position(self, entry: Entry[T]) -> int:
        """Return the place of a waiting entry in the order in which they would be served now; the next one is 1."""
        level = self._levels[entry.level]
        ahead = sum(len(flow.entries) for above in self._levels[: entry.level] for flow in above.flows.values())
        due = {}
        for flow in level.flows.values():
            paid = flow.paid
            for one in flow.entries:
                paid += one.cost
                due[one] = paid
        mine = due[entry]
        return ahead + sum(1 for one, when in due.items() if when < mine or (when == mine and one.since <= entry.since))

    def push(self, key_id: str, cost: int, priority: Priority, payload: T, now: float, *, slots: int = 1) -> Entry[T]:
        """Add an entry; the caller has checked `full_for`."""
        self._promote(now)
        level = 0 if self._fifo else LEVELS[priority]
        entry = Entry(key_id, max(1, cost), payload, now, now + self._max_wait, level, now, slots)
        self._all[entry] = None
        self._per_key[key_id] += 1
        self._levels[level].add(self._flow_of(entry), entry)
        return entry

    def pop(self, now: float, free: int = 1) -> Entry[T] | None:
        """Remove and return the entry to serve next, None if there is none or it needs more than `free` slots."""
        self._promote(now)
        for level in self._levels:
            if level.flows:
                entry = level.take(free)
                if entry is not None:
                    self._discard(entry)
                return entry
        return None

    def remove(self, entry: Entry[T]) -> bool:
        """Remove an entry whose caller was cancelled. Returns whether it was still waiting."""
        if not entry.waiting:
            return False
        self._levels[entry.level].discard(self._flow_of(entry), entry)
        self._discard(entry)
        return True

    def expire(self, now: float) -> list[Entry[T]]:
        """Remove and return all entries whose deadline has passed."""
        expired = []
        while self._all and (entry := next(iter(self._all))).deadline <= now:
            self.remove(entry)
            expired.append(entry)
        return expired

    def first(self) -> Entry[T] | None:
        """Return the entry that arrived first, or None if the queue is empty."""
        return next(iter(self._all), None)

    def next_deadline(self) -> float | None:
        """Return the deadline of the oldest entry, or None if the queue is empty."""
        return next(iter(self._all)).deadline if self._all else None

    def refund(self, entry: Entry[T], tokens: int) -> None:
        """Refund the tokens that a served entry did not use, if its key has entries waiting."""
        if tokens > 0 and not self._fifo:
            self._levels[entry.level].refund(self._flow_of(entry), tokens)

    def _flow_of(self, entry: Entry[T]) -> str:
        return "" if self._fifo else entry.key_id

    def _discard(self, entry: Entry[T]) -> None:
        entry.waiting = False
        del self._all[entry]
        self._per_key[entry.key_id] -= 1
        if not self._per_key[entry.key_id]:
            del self._per_key[entry.key_id]

    def _promote(self, now: float) -> None:
        # From the lowest level up, so that an entry that has waited twice `aging_seconds` is promoted twice.
        for index in range(len(self._levels) - 1, 0, -1):
            level = self._levels[index]
            while level.aging and (entry := next(iter(level.aging))).entered + self._aging <= now:
                level.discard(entry.key_id, entry)
                entry.entered += self._aging
                entry.level = index - 1
                self._levels[index - 1].add(entry.key_id, entry)
