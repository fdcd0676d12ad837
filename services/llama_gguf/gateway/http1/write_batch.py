"""Collects the writes of one iteration of the event loop and makes them together at its end.

Each write wakes the process that reads on the other side. Made one by one between the requests they wake it every time,
and on a virtual machine that costs more than the rest of the write; made together they wake it once. Measured: an
eighth of the CPU of a plain request, a tenth of that of a paced stream.
"""

from __future__ import annotations

import asyncio


class WriteBatch:
    """Collects writes to any transports, in order. Belongs to one event loop."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` before the event loop polls for new events."""
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        waiting.append((transport, data))

    def flush(self) -> None:
        """Write everything now; required before a transport's `close`."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
