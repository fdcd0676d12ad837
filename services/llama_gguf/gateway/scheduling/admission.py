"""A slot of the engine for every request in flight, a bounded and fair queue for the rest.

Owns the number of requests in the engine. Belongs to one event loop and is used from its thread only. A released slot
is passed directly to the next waiting request; it is never free in between, so no request can bypass the queue.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.hold_time import INITIAL_SECONDS, SMOOTHING
from llama_gguf.gateway.scheduling.fair_queue import Entry, FairQueue
from llama_gguf.keys.record import Priority

if TYPE_CHECKING:
    from llama_gguf.settings.sections.limits import Queue

Rejection = Literal["queue", "key", "timeout"]


class Ticket:
    """A slot held by one request, until `release`."""

    __slots__ = ("_admission", "_entry", "_held", "cost", "granted", "slots", "waited_seconds")

    def __init__(  # noqa: PLR0917 - created in two places, for each request
        self, admission: Admission, cost: int, slots: int, granted: float, waited: float, entry: Entry[Grant] | None
    ) -> None:
        self._admission = admission
        self._entry = entry
        self._held = True
        self.cost = cost
        self.slots = slots
        self.granted = granted  # on the admission's clock
        self.waited_seconds = waited

    def release(self, tokens_used: int | None = None) -> None:
        """Free the slot; later calls do nothing.

        `tokens_used`, if known, refunds the key what the estimate was too high.
        """
        if self._held:
            self._held = False
            self._admission.return_ticket(self, self._entry, tokens_used)


Grant = asyncio.Future[Ticket]


class Admission:
    """Lets requests into the engine that need `capacity` slots together at a time.

    `on_rejected` is called with the reason of each rejection. While it is closed all requests wait. `on_change` is
    called when a request begins to wait for it to open, when one that was let in earlier has ended meanwhile, and when
    the last one has ended; `opens_in` says in how many seconds it is expected to open.
    """

    def __init__(
        self,
        capacity: int,
        queue: Queue,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_rejected: Callable[[Rejection], None] = lambda _: None,
        on_change: Callable[[], None] | None = None,
        opens_in: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._on_rejected = on_rejected
        self._on_change = on_change
        self._opens_in = opens_in
        self._closed = False
        self.last_used = clock()  # when a request has been let in or has ended
        self._max_wait = queue.max_wait_seconds
        self._active = 0
        self._mean_hold = 0.0  # moving average of the time a slot is held, in seconds; 0 = none has been released yet
        self._timer: asyncio.TimerHandle | None = None
        self._queue: FairQueue[Grant] = FairQueue(
            max_size=queue.max_size,
            max_size_per_key=queue.max_size_per_key,
            max_wait_seconds=queue.max_wait_seconds,
            aging_seconds=queue.aging_seconds,
            fairness=queue.fairness,
        )

    @property
    def active(self) -> int:
        """Slots that requests hold."""
        return self._active

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self._capacity

    @property
    def closed(self) -> bool:
        """Whether no request is let in."""
        return self._closed

    @property
    def oldest_waiting_since(self) -> float | None:
        """When the oldest waiting request arrived, on the clock; None if there is none."""
        deadline = self._queue.next_deadline()
        return None if deadline is None else deadline - self._max_wait

    def close(self) -> None:
        """Let no request in until `open`; those that hold a slot go on."""
        self._closed = True

    def open(self) -> None:
        """Let requests in again, those that wait first."""
        self._closed = False
        self._serve()

    def refuse_waiting(self, error: GatewayError) -> None:
        """End the wait of every request with an error."""
        while (entry := self._queue.first()) is not None:
            self._queue.remove(entry)
            if not entry.payload.done():
                entry.payload.set_exception(error)

    def outlook(self, entry: Entry[Grant]) -> tuple[int, int]:
        """Return the position in the queue of a waiting request, and the seconds that it is expected to wait."""
        position = self._queue.position(entry) if entry.waiting else 0
        return position, self._retry_after(position)

    def waiting_of(self, key_id: str) -> int:
        """Return the number of requests of one key in the queue."""
        return self._queue.waiting_of(key_id)

    async def acquire(
        self,
        key_id: str,
        cost_tokens: int,
        priority: Priority = "normal",
        sequences: int = 1,
        on_queued: Callable[[Admission, Entry[Grant]], None] | None = None,
    ) -> Ticket:
        """Acquire a slot for each of a request's sequences, or wait for them; at most all slots there are.

        Raises GatewayError 503 queue_full or queue_timeout. A cancelled caller leaves the queue at once; slots that it
        was just granted go to the next request. If the queue is full, the newest request of whoever has most in it
        gives way, so that no key can shut others out. `on_queued` is called if the request has to wait.
        """
        slots = sequences if sequences < self._capacity else self._capacity
        if self._active + slots <= self._capacity and not self._closed and not len(self._queue):
            self._active += slots
            return Ticket(self, cost_tokens, slots, self._clock(), 0.0, None)
        reason = self._queue.full_for(key_id)
        if reason is not None:
            displaced = self._queue.give_way(key_id) if reason == "queue" else None
            self._on_rejected(reason)
            if displaced is None:
                raise self._queue_full(reason, key_id)
            if not displaced.payload.done():
                displaced.payload.set_exception(self._queue_full(reason, displaced.key_id))
        grant: Grant = asyncio.get_running_loop().create_future()
        entry = self._queue.push(key_id, cost_tokens, priority, grant, self._clock(), slots=slots)
        if on_queued is not None:
            on_queued(self, entry)
        self._serve()  # the queue may hold only what does not fit, and this may be due before it
        self._arm_timer()
        self._notify_if_closed()
        try:
            return await grant
        except asyncio.CancelledError:
            self._cancel(entry)
            raise

    def resize(self, capacity: int) -> None:
        """Change how many slots there are. A request that waits for more than that gets its turn alone."""
        self._capacity = capacity
        self._serve()

    def return_ticket(self, ticket: Ticket, entry: Entry[Grant] | None, tokens_used: int | None) -> None:
        """Release the slot of `ticket`. For Ticket.release only, which calls it once."""
        self._active -= ticket.slots
        self.last_used = now = self._clock()
        held = now - ticket.granted
        self._mean_hold = held if not self._mean_hold else self._mean_hold + SMOOTHING * (held - self._mean_hold)
        if len(self._queue):
            if entry is not None and tokens_used is not None:
                self._queue.refund(entry, entry.cost - tokens_used)
            self._serve()
        if self._on_change is not None and (self._closed or not self._active):
            self._on_change()

    def _serve(self) -> None:
        while self._active < self._capacity and not self._closed:
            now = self._clock()
            # Alone, a request may need more slots than there are: they can have become fewer while it waited.
            entry = self._queue.pop(now, self._capacity - self._active if self._active else sys.maxsize)
            if entry is None:
                return
            grant = entry.payload
            if grant.done():  # cancelled, but its caller has not run yet
                continue
            self._active += entry.slots
            grant.set_result(Ticket(self, entry.cost, entry.slots, now, now - entry.since, entry))

    def _cancel(self, entry: Entry[Grant]) -> None:
        grant = entry.payload
        if self._queue.remove(entry):
            self._serve()  # it may have been what the others waited behind
            self._notify_if_closed()
            return
        if not grant.done() or grant.cancelled():
            return
        # The slot was granted in the same iteration of the event loop as the cancellation.
        if grant.exception() is None:
            grant.result().release()

    def _notify_if_closed(self) -> None:
        if self._closed and self._on_change is not None:
            self._on_change()

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` from now on."""
        self._on_change = on_change

    def _arm_timer(self) -> None:
        deadline = self._queue.next_deadline()
        if self._timer is None and deadline is not None:
            delay = max(0.001, deadline - self._clock())  # the event loop's clock can be slightly ahead
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        for entry in self._queue.expire(self._clock()):
            if not entry.payload.done():
                self._on_rejected("timeout")
                entry.payload.set_exception(self._queue_timeout())
        self._serve()  # what the others waited behind may be gone
        self._arm_timer()
        self._notify_if_closed()

    def _retry_after(self, ahead: int) -> int:
        """Return the seconds, rounded up, until `ahead` requests have been served, estimated from recent ones."""
        mean_hold = self._mean_hold or INITIAL_SECONDS
        seconds = min(self._max_wait, ahead * mean_hold / max(1, self._capacity))
        return max(1, math.ceil(seconds + (self._opens_in() if self._closed else 0.0)))

    def _queue_full(self, reason: Rejection, key_id: str) -> GatewayError:
        if reason == "key":
            message = "This key has reached its maximum of queued requests; try again when some have completed."
            ahead = self._queue.waiting_of(key_id)
        else:
            message = "The queue is full; try again later."
            ahead = len(self._queue)
        return GatewayError(
            "queue_full",
            message,
            retry_after=self._retry_after(ahead),
            headers=_position(ahead + 1),
        )

    def _queue_timeout(self) -> GatewayError:
        return GatewayError(
            "queue_timeout",
            f"No slot became free within {self._max_wait:g} seconds; try again later.",
            retry_after=self._retry_after(len(self._queue) + 1),
            headers=_position(len(self._queue) + 1),
        )


def _position(number: int) -> tuple[tuple[str, str], ...]:
    """Return the header that says where in the queue the request would be if it came again now."""
    return (("X-Queue-Position", str(number)),)
