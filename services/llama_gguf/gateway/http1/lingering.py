"""How long a refused upload is read on, so that the client gets to read the response. Pure.

Closing a socket with unread bytes resets the connection, and a reset destroys the response that the client has not read
yet. Clients such as Java's and .NET's send their whole body before they read.
"""

from __future__ import annotations

MAX_BYTES = 64 * 1024 * 1024
SILENT_SECONDS = 5.0
MAX_SECONDS = 30.0


class Lingering:
    """What is left to be read and thrown away, in bytes and seconds. `remaining` is None for a chunked body."""

    __slots__ = ("_budget", "_end", "_until", "deadline")

    def __init__(self, remaining: int | None, now: float) -> None:
        self._end = remaining is not None and remaining <= MAX_BYTES
        self._budget = MAX_BYTES if remaining is None else min(remaining, MAX_BYTES)
        self._until = now + MAX_SECONDS
        self.deadline = now + SILENT_SECONDS

    def receive(self, size: int, now: float) -> bool:
        """Count bytes that have arrived; return whether to read on."""
        self._budget -= size
        self.deadline = min(now + SILENT_SECONDS, self._until)
        return self._budget > 0

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived, so that closing resets nothing."""
        return self._end and self._budget <= 0
