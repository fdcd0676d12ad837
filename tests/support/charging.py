"""What a key was charged, and requests whose client disconnects."""

from __future__ import annotations

import asyncio
from typing import Any

from support.http_client import request_bytes
from support.running_gateway import Running

GENEROUS = {"limits": {"tokens_per_minute": 1_000_000, "max_in_flight": 3, "queue": {"max_size": 0}}}


async def charged(running: Running, key_id: str = "tester") -> int:
    """Return the tokens a key is charged this minute and the last."""
    store: Any = running.gateway.limiter._store
    counts = store.counts_of(key_id, running.gateway.limiter._clock())
    return int(counts.tokens + counts.previous_tokens)


async def leave(running: Running, path: str, body: dict[str, Any], *, after: bytes = b"", seconds: float = 0.0) -> None:
    """Make a request and disconnect, after some bytes of the response or some time after the engine has received it."""
    asked = len(running.engine.asked)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request_bytes("POST", path, body=body))
    if after:
        await reader.readuntil(after)
    else:
        await running.until(lambda: len(running.engine.asked) > asked)
        await asyncio.sleep(seconds)
    writer.close()
