"""For calls that may return without an awaitable."""

from __future__ import annotations

from collections.abc import Awaitable


async def finished(call: Awaitable[None] | None) -> None:
    """Await the result of a call where it is awaitable."""
    if call is not None:
        await call
