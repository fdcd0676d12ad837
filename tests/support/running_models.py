"""A gateway with several models, whose engines are fake ones that a stand-in for supervisord starts and stops."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llama_gguf.gateway.app import Gateway
from llama_gguf.gateway.backends.memory import PlannedMemory
from llama_gguf.gateway.inputs import RuntimeInputs
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.supervisord_client import RUNNING_STATES, STOPPED_STATES, SupervisordError
from llama_gguf.settings import RunDir

from .fake_engine import FakeEngine
from .gateway_box import ENGINE_KEY, Box, make_box
from .running_gateway import Running


class FakeSupervisord:
    """Starts and stops fake engines on the event loop; called from other threads, as supervisord's client is.

    `broken`: programs that fail at their next start, with the cause. `done`: what it did, in order. `most_running`: the
    most engines that ran at the same time, `most_needed` the most that they needed together, by `needs`,
    `most_loading` the most that were being loaded. `unreachable`: it does not respond. `loses_responses`: it does what
    it is asked, and says nothing. `slow_seconds`: what a call takes. `stop_seconds`: what an engine takes to stop.
    `cut_short`: requests that were in an engine that was stopped.
    """

    def __init__(self, run: RunDir, needs: Mapping[str, int], loading_seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.engines = {
            program: FakeEngine(run.of_engine(program).engine_socket, loading_seconds=0.0) for program in needs
        }
        self.states = dict.fromkeys(needs, "STOPPED")
        self.broken: dict[str, str] = {}
        self.done: list[str] = []
        self.most_running = self.most_needed = self.most_loading = self.cut_short = 0
        self.unreachable = self.loses_responses = False
        self.slow_seconds = self.stop_seconds = 0.0
        self._needs = needs
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._run = run
        self._loading_seconds = loading_seconds

    def state_of(self, name: str) -> str:
        time.sleep(self.slow_seconds)
        if self.unreachable or name not in self.states:
            raise SupervisordError(f"no program {name}")
        return self.states[name]

    def start_program(self, name: str) -> None:
        if self.state_of(name) in STOPPED_STATES:
            asyncio.run_coroutine_threadsafe(self.start(name), self.loop).result(20)
        self._respond()

    def stop_program(self, name: str) -> None:
        if self.state_of(name) in RUNNING_STATES:
            asyncio.run_coroutine_threadsafe(self.stop(name), self.loop).result(20)
        self._respond()

    def _respond(self) -> None:
        if self.loses_responses:
            raise SupervisordError("timed out")

    @property
    def running(self) -> list[str]:
        """The programs whose engines use memory."""
        return [name for name, state in self.states.items() if state in {"RUNNING", "STOPPING"}]

    async def start(self, name: str) -> None:
        self.done.append(f"start {name}")
        if cause := self.broken.get(name):
            failure = Failure(name, 1, None, f"{name} cannot start", cause, "", (), 0.0)
            await asyncio.to_thread(failures.write, failure, self._run.of_engine(name).engine_failure)
            self.states[name] = "STOPPED"
            return
        self.states[name] = "RUNNING"
        self.most_running = max(self.most_running, len(self.running))
        self.most_needed = max(self.most_needed, sum(self._needs[one] for one in self.running))
        engine = self.engines[name]
        engine.ready_at = now = asyncio.get_running_loop().time()
        engine.ready_at += self._loading_seconds
        loading = sum(one.ready_at > now for one in self.engines.values())
        self.most_loading = max(self.most_loading, loading)
        async with self._lock:
            await engine.start()

    async def stop(self, name: str) -> None:
        self.done.append(f"stop {name}")
        requests = self.engines[name].asked
        self.cut_short += sum(one.open and not one.finished and not one.dropped for one in requests)
        self.states[name] = "STOPPING"
        if self.stop_seconds:
            self._later(self.stop_seconds, self._end(name, "STOPPED"))
        else:
            await self._end(name, "STOPPED")

    async def kill(self, name: str) -> None:
        """kill -9 of an engine; it is started again a little later, unless it was being stopped."""
        if self.states[name] == "RUNNING":
            await self._end(name, "EXITED")
            self._later(0.1, self._restart(name))

    async def _end(self, name: str, state: str) -> None:
        async with self._lock:
            await self.engines[name].stop()
        self.states[name] = state

    async def _restart(self, name: str) -> None:
        if self.states[name] == "EXITED":
            await self.start(name)

    async def close(self) -> None:
        """Stop everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for engine in self.engines.values():
            await engine.stop()

    def _later(self, seconds: float, work: Coroutine[Any, Any, None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work

        self._tasks.add(task := self.loop.create_task(wait()))
        task.add_done_callback(self._tasks.discard)


class RunningModels(Running):
    """A gateway on a port of its own in front of several engines."""

    def __init__(self, box: Box, gateway: Gateway, supervisord: FakeSupervisord, port: int, log: io.BytesIO) -> None:
        super().__init__(box, gateway, next(iter(supervisord.engines.values())), port, log)
        self.supervisord = supervisord

    def state(self, name: str) -> str:
        """Return the state of a model."""
        return next(one.residency for one in self.gateway.backends.all if one.name == name)


MIB = 1 << 20


@asynccontextmanager
async def running_models(
    root: Path,
    changes: Mapping[str, Any],
    *,
    needs: Mapping[str, int],
    budget: int | None,
    loading_seconds: float = 0.05,
    broken: Mapping[str, str] | None = None,
    stopped: Sequence[str] = (),
    prepare: Callable[[FakeSupervisord], Awaitable[None]] | None = None,
    planning_seconds: float = 0.0,
    measured: int = 1,
) -> AsyncIterator[RunningModels]:
    """Run a gateway; `needs`: MiB of main memory by model, of `budget` MiB together. Engines `load: always` run.

    Of these not the ones in `stopped`. `prepare` is called before the gateway starts; `planning_seconds`: what its plan
    takes. `measured`: MiB of main memory that every engine is seen to use.
    """
    box = await asyncio.to_thread(make_box, root, changes)
    models = box.shot.models
    by_program = {one.program: needs.get(one.key, 0) for one in models}
    supervisord = FakeSupervisord(box.shot.locations.run, by_program, loading_seconds)
    supervisord.broken.update(broken or {})

    async def plan() -> PlannedMemory:
        await asyncio.sleep(planning_seconds)
        sizes = {f"engine-{name}" if name else "engine": (0, need * MIB) for name, need in needs.items()}
        return PlannedMemory(None, None if budget is None else budget * MIB, sizes)

    log = io.BytesIO()
    gateway = Gateway(
        box.shot,
        RuntimeInputs({one.program: ENGINE_KEY for one in models}, "test", "test-host"),
        access_stream=log,
        engine_switch=supervisord,
        plan=plan,
        measure_process=lambda _pid: (0, measured * MIB),
    )
    for one in models:
        if not one.on_demand and one.key not in stopped:
            await supervisord.start(one.program)
    if prepare is not None:
        await prepare(supervisord)
    await gateway.start()
    server = await asyncio.get_running_loop().create_server(gateway.protocol, "127.0.0.1", 0)
    try:
        yield RunningModels(box, gateway, supervisord, server.sockets[0].getsockname()[1], log)
    finally:
        server.close()
        await gateway.stop()
        await supervisord.close()
