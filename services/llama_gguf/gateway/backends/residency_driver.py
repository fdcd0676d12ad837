"""Loads and unloads the models: what `residency.policy` decides, done through supervisord.

An engine is a program of supervisord, so to load a model is to start one, and to unload it is to stop it cleanly. Owns
the state of each model; requests wait in the model's queue until it is loaded. Nothing but a request, or an operator,
has a model loaded: neither health checks nor metrics.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.backends.backend import ModelBackend
from llama_gguf.gateway.backends.managed import ManagedModel
from llama_gguf.gateway.backends.memory import PlannedMemory
from llama_gguf.gateway.residency.forecast import expected_wait, impossible
from llama_gguf.gateway.residency.model_state import Action, Budget, Need, Rules
from llama_gguf.gateway.residency.policy import decide, next_check
from llama_gguf.gateway.telemetry.metrics import Metrics
from llama_gguf.gateway.upstream.errors import model_loading
from llama_gguf.logs import fields
from llama_gguf.rundir import residency as residency_file
from llama_gguf.rundir.residency import EngineResidency
from llama_gguf.rundir.supervisord_client import SupervisordError
from llama_gguf.settings import RunDir
from llama_gguf.states import EngineState, Residency

_log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 15.0
_MAX_RETRY_SECONDS = 600.0
_STOP_POLL_SECONDS = 0.05
_QUEUE_POLL_SECONDS = 0.1
_STOP_MARGIN_SECONDS = 10.0
_STOP_AGAIN_SECONDS = 1.0
_ADOPT_PAUSE_SECONDS = 1.0
_AT_REST = frozenset({"STOPPED", "FATAL"})  # after EXITED supervisord starts the program again
_NO_BUDGET = Budget(None, None)


class EngineSwitch(Protocol):
    """supervisord, as far as engines are started and stopped. Its calls block, and raise SupervisordError."""

    def start_program(self, name: str) -> None:
        """Start a program that does not run."""

    def stop_program(self, name: str) -> None:
        """Begin to stop a program that runs."""

    def state_of(self, name: str) -> str:
        """Return its state, such as RUNNING."""


class ResidencyDriver:
    """Drives the models of one gateway. Belongs to one event loop.

    `plan` returns what the models need and may use; it is asked once, and not for a single model.
    """

    def __init__(
        self,
        backends: Sequence[ModelBackend],
        rules: Rules,
        switch: EngineSwitch,
        run: RunDir,
        *,
        metrics: Metrics,
        plan: Callable[[], Awaitable[PlannedMemory]],
        stop_seconds: float,
        measure_process: Callable[[int], tuple[int, int]],
    ) -> None:
        self._models = {one.one.program: ManagedModel(one) for one in backends}
        self._rules = rules
        self._switch = switch
        self._run = run
        self._metrics = metrics
        self._plan = plan
        self._stop_seconds = stop_seconds
        self._measure = measure_process
        self._budget = _NO_BUDGET
        self._stopped_before: frozenset[str] = frozenset()  # by a gateway before this one
        self._wake = asyncio.Event()
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._written: dict[str, EngineResidency] | None = None
        self._writing = asyncio.Lock()
        for managed in self._models.values():
            managed.backend.watch(self._wake.set, self._opens_in(managed))
            managed.backend.engine.watch(self._engine_changed(managed))

    async def start(self) -> None:
        """Find out which engines run, and begin."""
        before = await asyncio.to_thread(residency_file.read, self._run.residency)
        self._stopped_before = frozenset(program for program, one in before.items() if not one.wanted)
        unknown = await self._adopt_all(tuple(self._models.values()))
        await self._write()
        self._spawn(self._run_until_cancelled(unknown))

    def drain(self) -> None:
        """Load and unload nothing more, because the gateway stops: requests for what is not loaded are refused."""
        self._draining = True
        self._wake.set()
        for managed in self._models.values():
            if managed.state is Residency.DRAINING:
                self._act(Action("resume", managed.program, "the gateway stops"))
            elif managed.state not in (Residency.LOADED, Residency.LOADING):
                managed.backend.refuse_with(model_loading)

    async def stop(self) -> None:
        """Stop deciding; what runs goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def find(self, name: str) -> ManagedModel:
        """Return a model by a name that clients use. Raises GatewayError 404."""
        for managed in self._models.values():
            if name in managed.backend.names or name in managed.backend.variants:
                return managed
        raise GatewayError("model_not_found", f"There is no model {name!r}.", param="model")

    def load(self, name: str) -> None:
        """Load a model as if a request waited for it. Raises GatewayError."""
        managed = self.find(name)
        if managed.impossible is not None:
            raise _failed(managed, managed.impossible)
        managed.unload_requested = False
        managed.retry_at = None
        managed.load_requested_at = None if managed.state is Residency.LOADED else time.monotonic()
        self._wake.set()

    def unload(self, name: str) -> None:
        """Unload a model once its requests have ended; the next request loads it again. Raises GatewayError."""
        managed = self.find(name)
        managed.load_requested_at = None
        managed.pinned = False
        managed.unload_requested = managed.state not in (Residency.UNLOADED, Residency.FAILED)
        self._wake.set()

    def pin(self, name: str, *, pinned: bool) -> None:
        """Keep a model in memory, or allow it to leave again. Raises GatewayError."""
        managed = self.find(name)
        if pinned:
            self.load(name)
        managed.pinned = pinned
        self._judge()
        self._wake.set()

    def describe(self, name: str) -> dict[str, object]:
        """Return what an operator is told of a model, as JSON values. Raises GatewayError."""
        managed = self.find(name)
        backend = managed.backend
        failure = backend.engine.failure if managed.state is Residency.FAILED else None
        return {
            "name": backend.name,
            "state": managed.state,
            "since_seconds": round(time.monotonic() - managed.since, 1),
            "pinned": managed.pinned,
            "on_demand": backend.one.on_demand,
            "running": backend.demand.running,
            "waiting": backend.demand.waiting,
            "idle_seconds": round(time.monotonic() - backend.demand.last_used, 1),
            "device_bytes": managed.need.device,
            "host_bytes": managed.need.host,
            "load_seconds": round(backend.load_seconds, 2),
            "load_requested": managed.load_requested_at is not None,
            "unload_requested": managed.unload_requested,
            "problem": managed.impossible or managed.problem or (failure.cause or failure.summary if failure else ""),
            "remedy": failure.fix if failure and not managed.impossible else "",
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The main names of all models."""
        return tuple(managed.backend.name for managed in self._models.values())

    # --- from supervisord and the engines -----------------------------------------------------------------------

    async def _adopt_all(self, models: Sequence[ManagedModel]) -> list[ManagedModel]:
        """Take over the engines in the states in which supervisord has them; return those that it said nothing of."""
        adopted = await asyncio.gather(*(self._adopt(managed) for managed in models))
        return [managed for managed, done in zip(models, adopted, strict=True) if not done]

    async def _adopt(self, managed: ManagedModel) -> bool:
        try:
            state = await asyncio.to_thread(self._switch.state_of, managed.program)
        except SupervisordError as error:
            _log.warning("supervisord does not respond", extra=fields(reason=str(error)))
            if managed.state is Residency.LOADING:
                managed.backend.close()  # until it is known to run
            return False
        backend = managed.backend
        if state in {"STOPPING", "STOPPED"} or (state == "FATAL" and backend.one.on_demand):
            stopping = state == "STOPPING"  # the process before this one began it
            managed.enter(Residency.UNLOADING if stopping else Residency.UNLOADED)
            # One that is always loaded, and not stopped by a gateway before this one, has its turn now.
            managed.was_stopped = stopping or backend.one.on_demand or managed.program in self._stopped_before
            managed.load_requested_at = None if managed.was_stopped else time.monotonic()
            backend.close()
            backend.engine.unload()
            if stopping:
                self._spawn(self._stop_engine(managed))
        elif managed.state is Residency.LOADING:  # its requests wait as those of a single model do
            managed.enter(Residency.LOADED if backend.engine.state is EngineState.READY else Residency.LOADING)
            backend.open()
        return True

    def _engine_changed(self, managed: ManagedModel) -> Callable[[EngineState], None]:
        def changed(state: EngineState) -> None:
            if managed.state is Residency.LOADING and state is EngineState.READY:
                self._loaded(managed)
            elif managed.state in (Residency.LOADING, Residency.LOADED, Residency.DRAINING) and (
                state is EngineState.FAILED
            ):
                self._load_failed(managed)

        return changed

    def _loaded(self, managed: ManagedModel) -> None:
        seconds = time.monotonic() - managed.since
        if managed.was_stopped or seconds > 1.0:  # else it may have been loaded before this process
            managed.backend.load_seconds = seconds
        managed.loaded_at = time.monotonic()
        managed.failures = 0
        managed.retry_at = None
        managed.load_requested_at = None
        managed.enter(Residency.LOADED)
        self._metrics.model_loaded(managed.backend.name, Residency.LOADED)
        managed.backend.open()
        self._spawn(self._correct_need(managed))
        self._spawn(_describe(managed.backend))
        self._wake.set()

    def _load_failed(self, managed: ManagedModel) -> None:
        managed.failures += 1
        pause = min(_MAX_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** (managed.failures - 1))
        managed.retry_at = time.monotonic() + pause
        managed.load_requested_at = None
        managed.unload_requested = False
        managed.was_stopped = True
        managed.enter(Residency.FAILED, f"the next request after {pause:.0f} s loads it again")
        self._metrics.model_loaded(managed.backend.name, Residency.FAILED)
        managed.backend.refuse_with(functools.partial(self._refusal, managed))
        managed.backend.close()
        managed.stopping = True
        self._spawn(self._stop_failed(managed))
        self._wake.set()

    async def _stop_failed(self, managed: ManagedModel) -> None:
        """See to it that nothing of a failed engine runs on; until then its memory counts as used."""
        await self._stop_until_stopped(managed)
        managed.stopping = False
        self._wake.set()

    def _refusal(self, managed: ManagedModel) -> GatewayError | None:
        """Return the error of a new request, None once the model may be tried again."""
        if managed.impossible is not None:
            return _failed(managed, managed.impossible_for_clients)
        left = (managed.retry_at or 0.0) - time.monotonic()
        if managed.state is not Residency.FAILED or left <= 0:
            return None
        if managed.problem:  # the engine's state says nothing of a start that nobody confirmed
            error = _failed(managed, "its engine could not be started")
        else:
            error = managed.backend.engine.unavailable_error()
        error.retry_after = math.ceil(left)
        return error

    async def _correct_need(self, managed: ManagedModel) -> None:
        """Replace the plan by what the process uses, if that is more: prompts will still be cached.

        What could not be planned before can be now, because the model's files are here.
        """
        limited = self._budget != _NO_BUDGET
        if limited and not managed.need_known:
            self._take_needs(await self._plan())
        device, host = await asyncio.to_thread(self._measure, managed.backend.client.engine_pid)
        managed.measured = Need(device, host)
        if limited and not managed.need_known and (device or not self._budget.device):
            managed.need_known = True
            managed.set_need(Need(device, host))
            self._assume_needs()
        need = managed.need
        if device > need.device or host > need.host:
            _log.info(
                "model uses more memory than planned",
                extra=fields(
                    model=managed.backend.name,
                    planned_device=need.device,
                    planned_host=need.host,
                    device=device,
                    host=host,
                ),
            )
            managed.set_need(Need(max(device, need.device), max(host, need.host)))
            if limited:
                self._assume_needs()

    # --- decisions ----------------------------------------------------------------------------------------------

    async def _run_until_cancelled(self, unknown: Sequence[ManagedModel]) -> None:
        while unknown:  # nothing can be decided, and nothing done
            await asyncio.sleep(_ADOPT_PAUSE_SECONDS)
            unknown = await self._adopt_all(unknown)
        if len(self._models) > 1:
            self._apply_plan(await self._plan())
        while not self._draining:
            self._wake.clear()
            seen = [managed.seen() for managed in self._models.values()]
            now = time.monotonic()
            for action in decide(seen, self._budget, self._rules, now):
                self._act(action)
            await self._write()
            at = next_check([managed.seen() for managed in self._models.values()], self._rules, now)
            pause = None if at is None else max(0.0, at - time.monotonic()) + 0.001
            if any(model.waiting and not model.resident for model in seen):
                # Queues of loaded models do not tell who is let in, and that can be what another waits for.
                pause = _QUEUE_POLL_SECONDS if pause is None else min(pause, _QUEUE_POLL_SECONDS)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _apply_plan(self, plan: PlannedMemory) -> None:
        self._budget = Budget(plan.device, plan.host)
        self._take_needs(plan)
        for managed in self._models.values():
            if managed.need_known:
                continue
            reason = plan.problems.get(managed.program, "")
            details = fields(model=managed.backend.name, reason=reason)
            _log.warning("what the model needs is not known; no other is loaded beside it on demand", extra=details)
            if managed.state is Residency.LOADED:
                self._spawn(self._correct_need(managed))

    def _take_needs(self, plan: PlannedMemory) -> None:
        """Take what is planned for the models of which it was not known yet."""
        for program, managed in self._models.items():
            planned = plan.models.get(program)
            if planned is not None and not managed.need_known:
                managed.need_known = True
                seen = managed.measured  # an engine can have been measured before the plan was made
                managed.set_need(Need(max(planned[0], seen.device), max(planned[1], seen.host)))
        self._assume_needs()

    def _assume_needs(self) -> None:
        """Count a model whose need is not known with all that those leave that never give way."""
        known = [one for one in self._models.values() if one.need_known]
        staying = [one.need for one in known if one.pinned or not one.backend.one.on_demand]
        device = (self._budget.device or 0) - sum(need.device for need in staying)
        host = (self._budget.host or 0) - sum(need.host for need in staying)
        for managed in self._models.values():
            if not managed.need_known:
                managed.set_need(Need(max(0, device), max(0, host)))
        self._judge()
        self._wake.set()

    def _judge(self) -> None:
        """Find out which models never fit beside those that never leave, and refuse requests for them."""
        known = [managed for managed in self._models.values() if managed.need_known]
        for managed in known:
            others = [replace(other.seen(), name=other.backend.name) for other in known if other is not managed]
            reason = impossible(managed.need, self._budget, others)
            if reason is not None and reason != managed.impossible:
                _log.error("model never fits", extra=fields(model=managed.backend.name, reason=reason))
            managed.impossible = reason
            managed.impossible_for_clients = impossible(managed.need, self._budget, others, named=False) or ""
            if reason is not None and managed.state in (Residency.UNLOADED, Residency.FAILED):
                managed.backend.refuse_with(functools.partial(self._refusal, managed))

    def _act(self, action: Action) -> None:
        managed = self._models[action.name]
        match action.kind:
            case "load":
                managed.problem = ""
                managed.enter(Residency.LOADING, action.reason)
                managed.backend.refuse_with(None)
                self._spawn(self._start_engine(managed))
            case "drain":
                managed.enter(Residency.DRAINING, action.reason)
                managed.backend.close()
            case "resume":
                managed.load_requested_at = None  # it is in memory: nothing is left to wait for
                managed.enter(Residency.LOADED, action.reason)
                managed.backend.open()
            case "unload":
                managed.enter(Residency.UNLOADING, action.reason)
                managed.was_stopped = True
                managed.backend.close()
                managed.backend.engine.unload()
                self._spawn(self._stop_engine(managed))

    async def _start_engine(self, managed: ManagedModel) -> None:
        failure = self._run.of_engine(managed.program).engine_failure
        try:
            await asyncio.to_thread(failure.unlink, missing_ok=True)
            managed.backend.engine.expect()  # not before: it would find the failure of the last load
            await asyncio.to_thread(self._switch.start_program, managed.program)
        except (SupervisordError, OSError) as error:
            _log.error("engine cannot be started", extra=fields(model=managed.backend.name, reason=str(error)))
            if managed.state is Residency.LOADING:  # it can have started all the same
                managed.problem = f"supervisord cannot start it: {error}"
                self._load_failed(managed)

    async def _stop_engine(self, managed: ManagedModel) -> None:
        """Stop an engine cleanly; its memory counts as used until it has stopped."""
        await self._write()  # before it stops: health must not miss it
        await self._stop_until_stopped(managed)
        managed.unload_requested = False
        managed.enter(Residency.UNLOADED)
        self._judge()
        self._wake.set()

    async def _stop_until_stopped(self, managed: ManagedModel) -> None:
        while not await self._has_stopped(managed):
            _log.error("engine cannot be stopped yet", extra=fields(model=managed.backend.name))
            await asyncio.sleep(_STOP_AGAIN_SECONDS)

    async def _has_stopped(self, managed: ManagedModel) -> bool:
        """Stop an engine and wait for it. Returns whether it has stopped in the time that supervisord gives it."""
        deadline = time.monotonic() + self._stop_seconds + _STOP_MARGIN_SECONDS
        try:
            while time.monotonic() < deadline:
                await asyncio.to_thread(self._switch.stop_program, managed.program)
                if await asyncio.to_thread(self._switch.state_of, managed.program) in _AT_REST:
                    return True
                await asyncio.sleep(_STOP_POLL_SECONDS)
        except SupervisordError as error:
            _log.warning("supervisord does not respond", extra=fields(reason=str(error)))
        return False

    def _opens_in(self, managed: ManagedModel) -> Callable[[], float]:
        def seconds() -> float:
            seen = [one.seen() for one in self._models.values()]
            wait = expected_wait(seen, self._budget, self._rules, managed.program, time.monotonic())
            return wait if math.isfinite(wait) else _MAX_RETRY_SECONDS

        return seconds

    async def _write(self) -> None:
        """Write for the health server which engines it need not miss."""
        async with self._writing:
            engines = {
                program: EngineResidency(managed.state)
                for program, managed in self._models.items()
                if managed.was_stopped
            }
            if not engines or engines == self._written:
                return
            try:
                await asyncio.to_thread(residency_file.write, engines, self._run.residency)
            except OSError as error:
                _log.error(
                    "the states of models cannot be written for the health server", extra=fields(reason=str(error))
                )
                self._written = None
            else:
                self._written = engines

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("loading and unloading of models has failed", exc_info=error)


async def _describe(backend: ModelBackend) -> None:
    """Ask an engine that has been loaded for its model, so that the list of models need not."""
    await backend.models.body()


def _failed(managed: ManagedModel, reason: str) -> GatewayError:
    return GatewayError("model_failed", f"The model {managed.backend.name!r} cannot be loaded: {reason}")
