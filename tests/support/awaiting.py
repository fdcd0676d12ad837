"""For calls that may be done at once."""

from __future__ import annotations

from collections.abc import Awaitable


async def finished(call: Awaitable[None] | None) -> None:
    """Wait for a call, where it is not done already."""
    if call is not None:
        await call
