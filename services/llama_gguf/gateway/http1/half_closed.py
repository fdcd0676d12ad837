"""Tells apart clients that have ended their half of a connection and clients that are gone.

Both send a FIN; a half-closed client (`nc -N`) waits for its response, and one that is gone must not go on costing the
engine's time. Only a write tells: who is gone answers it with a reset. What is written until the response begins is an
interim response, `100 Continue`, which HTTP/1.1 has every client skip; after that it is the response itself. Once a
socket has been read to its end asyncio no longer watches it, so the reset is learned from an epoll of our own.

TCP keepalive would not do: a proxy that has passed on the FIN of a client answers for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable

FIRST_PROBE_SECONDS = 1.0
MAX_PROBE_SECONDS = 15.0


def next_probe(since: float, now: float) -> float:
    """Return when to write again to a client that has ended its half at `since`: after a second, then less often.

    The first write can be swallowed by a proxy that learns only by it that its client is gone; the second is not.
    """
    return now + min(max(now - since, FIRST_PROBE_SECONDS), MAX_PROBE_SECONDS)


class ResetWatch:
    """Calls back when the other end of a socket has reset the connection. Belongs to one event loop."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[], None]] = {}

    def add(self, fd: int, on_reset: Callable[[], None]) -> None:
        """Call `on_reset`, once, when the connection is reset."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)
        self._watched[fd] = on_reset
        self._epoll.register(fd, 0)  # EPOLLHUP and EPOLLERR are always reported

    def discard(self, fd: int) -> None:
        """Stop watching a socket; does nothing if it is not watched."""
        if self._watched.pop(fd, None) is not None and self._epoll is not None:
            with contextlib.suppress(OSError):  # already closed, and thereby unregistered
                self._epoll.unregister(fd)

    def _ready(self) -> None:
        if self._epoll is not None:
            for fd, _ in self._epoll.poll(0):
                on_reset = self._watched[fd]
                self.discard(fd)
                on_reset()

    def close(self) -> None:
        """Watch no more."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
            self._watched.clear()
