"""Whether the engine can accept requests: polls its /health, and learns from failed connections.

While the engine is not ready it is polled every quarter of a second, so a waiting request continues at once; while it
is ready, every few seconds. If the socket refuses connections, the state is `loading` while the engine's program is
downloading or starting, else `down`; once failure.json says that the appliance has given up, it is `failed`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.upstream.client import EngineClient, fetch
from llama_gguf.gateway.upstream.errors import ENGINE_RETRY_SECONDS, model_loading, without_paths
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.logs import fields
from llama_gguf.rundir import engine_phase, engine_variant, failure
from llama_gguf.rundir.engine_variant import EngineVariant
from llama_gguf.rundir.failure import Failure
from llama_gguf.states import EngineState, Phase, ServiceState

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_EXPECTED_POLL_SECONDS = 0.05
_READY_POLL_SECONDS = 2.0
_CHECK_TIMEOUT_SECONDS = 5.0
_STARTING_SECONDS = 15.0  # how long after exec a missing socket still counts as loading


class EngineMonitor:
    """Monitors one engine. `on_restart` is called once another process of the engine than before is ready. Belongs to
    one event loop.

    `failure_files`: that of the appliance, and that of this engine if the appliance goes on without it.

    `on_process` is called for each process of the engine that is ready, before requests get to it.

    `variant` is the CPU variant that the engine's program has recorded, as of the last check.
    """

    def __init__(
        self,
        client: EngineClient,
        phase_file: Path,
        *,
        failure_files: Sequence[Path],
        variant_file: Path,
        on_restart: Callable[[], None] | None = None,
        on_process: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._phase_file = phase_file
        self._failure_files = failure_files
        self._failure: Failure | None = None
        self._unloaded = False
        self._expected = False  # it is being started: its requests wait
        self._switched = 0  # how often it has been started or stopped on purpose: a check begun before tells nothing
        self._variant_file = variant_file
        self._on_change: Callable[[EngineState], None] | None = None
        self._on_restart = on_restart
        self._on_process = on_process
        self._told_of = 0  # pid of the last engine that `on_process` was called for
        self._clock = clock
        self._changed = asyncio.Event()
        self._recheck = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.state = EngineState.LOADING
        self._checked = False  # until then the state is a guess
        self.restarts = 0
        self._process = 0  # pid of the last engine that was ready
        self.variant: EngineVariant | None = None
        self._was_ready = False

    def watch(self, on_change: Callable[[EngineState], None]) -> None:
        """Call `on_change` with every change of state from now on."""
        self._on_change = on_change

    async def start(self) -> None:
        """Start monitoring."""
        self._task = asyncio.create_task(self._run(), name="engine-state")

    async def stop(self) -> None:
        """Stop monitoring."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def unload(self) -> None:
        """Ask no more, because the engine has been stopped on purpose."""
        self._unloaded = True
        self._switched += 1
        self._set(EngineState.UNLOADED)
        self._recheck.set()

    def expect(self) -> None:
        """Ask again, because the engine is being started."""
        self._unloaded = False
        self._switched += 1
        self._failure = None
        self._process = 0  # another one than before is no restart
        self._expected = True
        self._set(EngineState.LOADING)
        self._recheck.set()

    def connection_refused(self) -> None:
        """Check again now, and let new requests wait meanwhile, because no connection could be made."""
        if self.state is EngineState.READY:
            self._set(EngineState.LOADING)
        self._recheck.set()

    def check_now(self) -> None:
        """Check again without a wait, because a connection ended in the middle of a request: has the engine died?"""
        self._recheck.set()

    async def wait_ready(self, deadline: float) -> None:
        """Return once the engine is ready; raise GatewayError at `deadline` (monotonic), or if it never will be."""
        while self.state is not EngineState.READY:
            if self.state is EngineState.FAILED:
                raise self.unavailable_error()
            left = deadline - time.monotonic()
            if left <= 0 and self._checked:
                raise self.unavailable_error()
            changed = self._changed
            try:
                async with asyncio.timeout(max(left, 0.0 if self._checked else 1.0)):
                    await changed.wait()
            except TimeoutError:
                raise self.unavailable_error() from None

    @property
    def service_state(self) -> ServiceState:
        """What the engine's state means for clients, the gateway's own state aside."""
        if self.state is EngineState.READY:
            return ServiceState.READY
        if self.state is EngineState.UNLOADED:
            return ServiceState.READY  # the next request loads it
        if self.state is EngineState.FAILED:
            return ServiceState.FAILED
        return ServiceState.UNREADY if self._was_ready else ServiceState.STARTING

    @property
    def failure(self) -> Failure | None:
        """Why this engine was given up while the appliance goes on; None where that is not so, or not recorded."""
        return self._failure

    def unavailable_error(self) -> GatewayError:
        """Return the error for a request that cannot wait any longer."""
        if self.state is EngineState.LOADING:
            return model_loading()
        if self.state is EngineState.FAILED and self._failure is not None:
            cause = without_paths(self._failure.cause or self._failure.summary)
            return GatewayError("model_failed", f"The model could not be loaded: {cause}")
        if self.state is EngineState.FAILED:
            return GatewayError(
                "engine_failed",
                "The inference engine could not be started; the operator must restart the appliance.",
            )
        return GatewayError(
            "engine_unreachable",
            "The inference engine is not running.",
            retry_after=ENGINE_RETRY_SECONDS,
        )

    async def _run(self) -> None:
        while True:
            if self._unloaded:
                self._recheck.clear()
                await self._recheck.wait()
                continue
            # Before the check: an `await` between the check and `_set` could overwrite `connection_refused`.
            switched = self._switched
            self.variant = await asyncio.to_thread(engine_variant.read, self._variant_file)
            found = await self._check()
            if switched != self._switched:
                continue
            if found is EngineState.READY:
                self._note_process(self._client.engine_pid)
            if found is EngineState.READY and self._on_process is not None and self._process != self._told_of:
                self._told_of = self._process
                await self._on_process()  # before requests get to it
                if self._unloaded:
                    continue
            self._set(found)
            self._recheck.clear()
            if self.state is EngineState.READY:
                self._expected = False
                pause = _READY_POLL_SECONDS
            else:
                pause = _EXPECTED_POLL_SECONDS if self._expected else _POLL_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._recheck.wait()
                    await asyncio.sleep(_POLL_SECONDS / 10)  # one check for many failures at once
            except TimeoutError:
                continue

    async def _check(self) -> EngineState:
        try:
            status, _ = await fetch(
                self._client, b"GET /health HTTP/1.1\r\nHost: engine\r\n\r\n", _CHECK_TIMEOUT_SECONDS
            )
        except EngineFailure as failure:
            if failure.reason == "timeout":  # busy or stuck, but running; the requests have their own timeouts
                return self.state
            return await asyncio.to_thread(self._without_socket)
        if status != 200:
            return EngineState.LOADING
        return EngineState.READY

    def _note_process(self, pid: int) -> None:
        """Count a restart when another process than before is ready; a lost connection alone is none."""
        if self._process not in (0, pid):
            self.restarts += 1
            _log.warning("engine has been restarted", extra=fields(pid=pid, restarts=self.restarts))
            if self._on_restart is not None:
                self._on_restart()
        self._process = pid

    def _without_socket(self) -> EngineState:
        """Return the state by the files of the run directory, which show whether an engine is being started."""
        if any(file.exists() for file in self._failure_files):
            own = self._failure_files[-1]
            self._failure = failure.read(own) if len(self._failure_files) > 1 and own.exists() else None
            return EngineState.FAILED
        found = engine_phase.read(self._phase_file)
        if found is None or not _is_running(found.pid):
            return EngineState.DOWN
        overdue = found.phase is Phase.STARTING and self._clock() - found.since > _STARTING_SECONDS
        if overdue and self._was_ready:
            return EngineState.DOWN
        return EngineState.LOADING

    def _set(self, state: EngineState) -> None:
        if state is self.state and self._checked:
            return
        ready = state is EngineState.READY
        self._was_ready = self._was_ready or ready
        level = logging.INFO if ready or state is EngineState.LOADING else logging.WARNING
        _log.log(level, "engine is %s", state, extra=fields(before=self.state) if self._checked else None)
        self.state = state
        self._checked = True
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._on_change is not None:
            self._on_change(state)


def _is_running(pid: int) -> bool:
    if pid <= 0:  # the file has none; kill(2) would address a process group
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
