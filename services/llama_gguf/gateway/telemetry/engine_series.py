"""The engine's own series for /metrics, fetched at most once a second however often they are asked for.

Whoever may read /metrics could otherwise keep the engine busy: it answers between two steps of a generation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

FRESH_SECONDS = 1.0


class EngineSeries:
    """Keeps the last text. Belongs to one event loop."""

    def __init__(
        self, fetch: Callable[[], Awaitable[bytes | None]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._text: bytes | None = None
        self._until = float("-inf")

    async def text(self) -> bytes | None:
        """Return the engine's text, None if it does not respond. Who asks while it is being fetched waits for it."""
        async with self._lock:
            if self._clock() >= self._until:
                self._text = await self._fetch()
                self._until = self._clock() + FRESH_SECONDS
            return self._text
