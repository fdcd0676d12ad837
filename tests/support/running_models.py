"""A gateway with several models, whose engines are fake ones that a stand-in for supervisord starts and stops."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llama_gguf.gateway.app import Gateway
from llama_gguf.gateway.backends.memory import PlannedMemory
from llama_gguf.gateway.inputs import RuntimeInputs
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.supervisord_client import SupervisordError
from llama_gguf.settings import RunDir

from .fake_engine import FakeEngine
from .gateway_box import ENGINE_KEY, Box, make_box
from .running_gateway import Running


class FakeSupervisord:
    """Starts and stops fake engines on the event loop; called from other threads, as supervisord's client is.

    `broken`: programs that fail at their next start, with the cause. `done`: what it did, in order. `most_running`: the
    most engines that ran at the same time.
    """

    def __init__(self, run: RunDir, programs: tuple[str, ...], loading_seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.engines = {
            program: FakeEngine(run.of_engine(program).engine_socket, loading_seconds=0.0) for program in programs
        }
        self.states = dict.fromkeys(programs, "STOPPED")
        self.broken: dict[str, str] = {}
        self.done: list[str] = []
        self.most_running = 0
        self._run = run
        self._loading_seconds = loading_seconds

    def state_of(self, name: str) -> str:
        if name not in self.states:
            raise SupervisordError(f"no program {name}")
        return self.states[name]

    def start_program(self, name: str) -> None:
        asyncio.run_coroutine_threadsafe(self.start(name), self.loop).result(20)

    def stop_program(self, name: str) -> None:
        asyncio.run_coroutine_threadsafe(self.stop(name), self.loop).result(20)

    async def start(self, name: str) -> None:
        self.done.append(f"start {name}")
        if cause := self.broken.get(name):
            failure = Failure(name, 1, None, f"{name} cannot start", cause, "", (), 0.0)
            await asyncio.to_thread(failures.write, failure, self._run.of_engine(name).engine_failure)
            self.states[name] = "STOPPED"
            return
        self.states[name] = "RUNNING"
        engine = self.engines[name]
        engine.ready_at = asyncio.get_running_loop().time() + self._loading_seconds
        await engine.start()
        self.most_running = max(self.most_running, sum(state == "RUNNING" for state in self.states.values()))

    async def stop(self, name: str) -> None:
        self.done.append(f"stop {name}")
        await self.engines[name].stop()
        self.states[name] = "STOPPED"


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
) -> AsyncIterator[RunningModels]:
    """Run a gateway; `needs`: MiB of main memory by model, of `budget` MiB together. Engines `load: always` run.

    Of these not the ones in `stopped`.
    """
    box = await asyncio.to_thread(make_box, root, changes)
    models = box.shot.models
    supervisord = FakeSupervisord(box.shot.locations.run, tuple(one.program for one in models), loading_seconds)
    supervisord.broken.update(broken or {})

    async def plan() -> PlannedMemory:
        sizes = {f"engine-{name}" if name else "engine": (0, need * MIB) for name, need in needs.items()}
        return PlannedMemory(None, None if budget is None else budget * MIB, sizes)

    log = io.BytesIO()
    gateway = Gateway(
        box.shot,
        RuntimeInputs({one.program: ENGINE_KEY for one in models}, "test", "test-host"),
        access_stream=log,
        engine_switch=supervisord,
        plan=plan,
    )
    for one in models:
        if not one.on_demand and one.key not in stopped:
            await supervisord.start(one.program)
    await gateway.start()
    server = await asyncio.get_running_loop().create_server(gateway.protocol, "127.0.0.1", 0)
    try:
        yield RunningModels(box, gateway, supervisord, server.sockets[0].getsockname()[1], log)
    finally:
        server.close()
        await gateway.stop()
        for engine in supervisord.engines.values():
            await engine.stop()
