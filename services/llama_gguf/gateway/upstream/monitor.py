"""Whether the engine can take requests: asks its /health, and learns from the traffic.

While the engine is not ready it is asked every quarter of a second, so a waiting request goes on at once; while it is
ready, every few seconds. A socket that refuses is `loading` as long as the engine's program says that it works towards
an engine (downloading, starting), else `down`; once the appliance has written down that it gave up, it is `failed`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.upstream.client import EngineClient, fetch
from llama_gguf.gateway.upstream.errors import ENGINE_RETRY_SECONDS, model_loading
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.logs import fields
from llama_gguf.rundir import engine_phase, engine_variant
from llama_gguf.rundir.engine_variant import EngineVariant
from llama_gguf.states import EngineState, Phase, ServiceState

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_READY_POLL_SECONDS = 2.0
_CHECK_TIMEOUT_SECONDS = 5.0
_STARTING_SECONDS = 15.0  # how long after exec a missing socket still counts as loading


class EngineMonitor:
    """Watches one engine. `on_change` hears every change of state. Belongs to one event loop.

    `variant` is what the engine's program wrote of its CPU code, as of the last look.
    """

    def __init__(
        self,
        client: EngineClient,
        phase_file: Path,
        *,
        failure_file: Path,
        variant_file: Path,
        on_change: Callable[[EngineState], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._phase_file = phase_file
        self._failure_file = failure_file
        self._variant_file = variant_file
        self._on_change = on_change
        self._clock = clock
        self._changed = asyncio.Event()
        self._poke = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.state = EngineState.LOADING
        self._looked = False  # until then the state is a guess
        self.restarts = 0
        self.variant: EngineVariant | None = None
        self._was_ready = False

    async def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._run(), name="engine-state")

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def lost(self) -> None:
        """Note that a connection failed: look again now, and let new requests wait meanwhile."""
        if self.state is EngineState.READY:
            self._set(EngineState.LOADING)
        self._poke.set()

    async def wait_ready(self, deadline: float) -> None:
        """Return once the engine is ready; raise GatewayError at `deadline` (monotonic), or if it never will be."""
        while self.state is not EngineState.READY:
            if self.state is EngineState.FAILED:
                raise self.refusal()
            left = deadline - time.monotonic()
            if left <= 0 and self._looked:
                raise self.refusal()
            changed = self._changed
            try:
                async with asyncio.timeout(max(left, 0.0 if self._looked else 1.0)):
                    await changed.wait()
            except TimeoutError:
                raise self.refusal() from None

    @property
    def service_state(self) -> ServiceState:
        """What the engine's state means for clients, as far as it goes by the engine alone."""
        if self.state is EngineState.READY:
            return ServiceState.READY
        if self.state is EngineState.FAILED:
            return ServiceState.FAILED
        return ServiceState.UNREADY if self._was_ready else ServiceState.STARTING

    def refusal(self) -> GatewayError:
        """Return the answer for a request that cannot wait any longer."""
        if self.state is EngineState.LOADING:
            return model_loading()
        if self.state is EngineState.FAILED:
            return GatewayError(
                "engine_failed",
                "The inference engine could not be started and is not tried again until the operator restarts it.",
                headers=(("x-should-retry", "false"),),  # the official clients heed it
            )
        return GatewayError(
            "engine_unreachable",
            "The inference engine is not running.",
            retry_after=ENGINE_RETRY_SECONDS,
        )

    async def _run(self) -> None:
        while True:
            # Before the look: nothing may come between what is seen and its being so, or `lost` would be overruled.
            self.variant = await asyncio.to_thread(engine_variant.read, self._variant_file)
            self._set(await self._look())
            self._poke.clear()
            pause = _READY_POLL_SECONDS if self.state is EngineState.READY else _POLL_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._poke.wait()
                    await asyncio.sleep(_POLL_SECONDS / 10)  # many failures at once are one look
            except TimeoutError:
                continue

    async def _look(self) -> EngineState:
        try:
            status, _ = await fetch(
                self._client, b"GET /health HTTP/1.1\r\nHost: engine\r\n\r\n", _CHECK_TIMEOUT_SECONDS
            )
        except EngineFailure as failure:
            if failure.reason == "timeout":  # busy or stuck, but there; the requests' own timeouts judge it
                return self.state
            return await asyncio.to_thread(self._without_socket)
        return EngineState.READY if status == 200 else EngineState.LOADING

    def _without_socket(self) -> EngineState:
        """Tell by the files of the run directory whether an engine is on its way."""
        if self._failure_file.exists():
            return EngineState.FAILED
        found = engine_phase.read(self._phase_file)
        if found is None or not _lives(found.pid):
            return EngineState.DOWN
        overdue = found.phase is Phase.STARTING and self._clock() - found.since > _STARTING_SECONDS
        if overdue and self._was_ready:
            return EngineState.DOWN
        return EngineState.LOADING

    def _set(self, state: EngineState) -> None:
        if state is self.state and self._looked:
            return
        ready = state is EngineState.READY
        if ready and self._was_ready:
            self.restarts += 1
        self._was_ready = self._was_ready or ready
        level = logging.INFO if ready or state is EngineState.LOADING else logging.WARNING
        _log.log(level, "engine is %s", state, extra=fields(before=self.state) if self._looked else None)
        self.state = state
        self._looked = True
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._on_change is not None:
            self._on_change(state)


def _lives(pid: int) -> bool:
    if pid <= 0:  # the file names none; to the kernel it would be a group of processes
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
