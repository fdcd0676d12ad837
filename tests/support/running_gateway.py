"""A gateway and a fake engine on the test's own event loop, on real sockets."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llama_gguf.gateway.app import Gateway
from llama_gguf.gateway.inputs import RuntimeInputs

from .fake_engine import FakeEngine
from .gateway_box import ENGINE_KEY, Box, make_box
from .http_client import Answer, ask
from .patience import PATIENCE


class Running:
    """A gateway on a port of its own in front of a fake engine, both on the test's loop."""

    def __init__(self, box: Box, gateway: Gateway, engine: FakeEngine, port: int, log: io.BytesIO) -> None:
        self.box = box
        self.gateway = gateway
        self.engine = engine
        self.port = port
        self._log = log

    async def ask(self, method: str, target: str, **options: Any) -> Answer:
        """Make one request on a new connection."""
        return await ask(self.port, method, target, **options)

    async def chat(self, **fake: Any) -> Answer:
        """Make one plain chat request; the arguments are the fake engine's knobs."""
        return await self.ask("POST", "/v1/chat/completions", body=chat(**fake))

    async def stream(self, **fake: Any) -> Answer:
        """Make one chat request that streams."""
        return await self.ask("POST", "/v1/chat/completions", body=chat(stream=True, **fake))

    def log_bytes(self) -> bytes:
        """Return what has been written to the access log."""
        return self._log.getvalue()

    async def lines(self, count: int = 1) -> list[dict[str, Any]]:
        """Return the access log once it has at least `count` lines."""
        deadline = asyncio.get_running_loop().time() + 2 * PATIENCE
        while True:
            lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
            if len(lines) >= count:
                return lines
            assert asyncio.get_running_loop().time() < deadline, f"no {count} access lines: {self._log.getvalue()!r}"
            await asyncio.sleep(0.01)

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until `condition()` holds."""
        async with asyncio.timeout(seconds * PATIENCE):
            while not condition():  # noqa: ASYNC110 - any condition, seen from outside
                await asyncio.sleep(0.005)


def chat(*, stream: bool = False, **fake: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    if stream:
        body["stream"] = True
    if fake:
        body["metadata"] = {"fake": fake}
    return body


_BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hi", "max_tokens": 16},
    "/v1/responses": {"input": "hi", "max_output_tokens": 16},
    "/infill": {"input_prefix": "hi", "input_suffix": "there"},
    "/v1/embeddings": {"input": "hi"},
    "/rerank": {"query": "hi", "documents": ["there"]},
}


def body_of(path: str, *, stream: bool = False, **fake: Any) -> dict[str, Any]:
    """Return a plain body for a route; the knobs reach the fake engine where the route has metadata."""
    body = chat(stream=stream, **fake)
    if path not in _BODIES:
        return body
    del body["messages"], body["max_tokens"]
    if "metadata" in body and path not in ("/v1/completions", "/v1/responses"):
        del body["metadata"]
    return {**body, **_BODIES[path]}


Start = Callable[..., Awaitable[Running]]


@asynccontextmanager
async def running_gateway(
    root: Path, changes: Mapping[str, Any], engine_options: Mapping[str, Any]
) -> AsyncIterator[Running]:
    box = await asyncio.to_thread(make_box, root, changes)
    engine = FakeEngine(box.socket, **engine_options)
    log = io.BytesIO()
    gateway = Gateway(
        box.shot,
        RuntimeInputs({one.program: ENGINE_KEY for one in box.shot.models}, "test", "test-host"),
        access_stream=log,
    )
    await engine.start()
    await gateway.start()
    server = await asyncio.get_running_loop().create_server(gateway.protocol, "127.0.0.1", 0)
    try:
        yield Running(box, gateway, engine, server.sockets[0].getsockname()[1], log)
    finally:
        server.close()
        await gateway.stop()
        await engine.stop()
