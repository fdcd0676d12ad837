"""Gateway tests run the real app on real sockets, with a detector for calls that block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from support.running_gateway import Running, Start, running_gateway


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[BlockBuster]:
    """Raise where anything of the gateway blocks the event loop (files, sleeps, sockets, locks)."""
    with blockbuster_ctx(scanned_modules=["llama_gguf.gateway", "llama_gguf.keys"]) as detector:
        # /proc is no disk: prometheus_client reads the process's own figures there.
        for function in ("io.BufferedReader.read", "os.stat", "os.listdir"):
            detector.functions[function].can_block_in("prometheus_client/process_collector.py", "collect")
        yield detector


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start gateways with settings of one's own: `await start({"gateway": {...}}, loading_seconds=1)`."""
    async with AsyncExitStack() as stack:
        count = 0

        async def start_one(changes: Mapping[str, Any] | None = None, **engine_options: Any) -> Running:
            nonlocal count
            count += 1
            root = tmp_path / f"box{count}"
            await asyncio.to_thread(root.mkdir)
            return await stack.enter_async_context(running_gateway(root, changes or {}, engine_options))

        yield start_one


@pytest.fixture
async def running(start: Start) -> Running:
    """Return a gateway with the defaults of the tests."""
    return await start()
