"""Checks the appliance periodically, and holds the status that the server responds with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_gguf.health.responses import percent, pyworker_line
from llama_gguf.logs import fields
from llama_gguf.rundir import residency
from llama_gguf.states import ServiceState

from . import probe
from .engines import least_ready, model_status
from .state import Observation, Status, advance

if TYPE_CHECKING:
    from llama_gguf.rundir.snapshot import Snapshot

log = logging.getLogger(__name__)


class Monitor:
    """The one owner of the status. `print_line` gets the raw lines that a platform's log watcher waits for."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        print_line: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run = snapshot.locations.run
        self._models = snapshot.models
        self._health = snapshot.settings.health
        self._gateway = snapshot.settings.gateway
        self._print_line = print_line
        self._clock = clock
        self._seen = Observation()
        # This process may have been restarted: the file says whether the appliance was ready before.
        self._status = Status(ServiceState.STARTING, clock(), was_ready=run.ready.exists())

    def current(self) -> Status:
        """Return the status, with stop and failure as the files say now: a stop must show at once."""
        failure, cause = probe.read_failure(self._run)
        now = replace(self._seen, draining=self._run.draining.exists(), failure=failure, cause=cause)
        self._apply(now, probed=False)
        return self._status

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(self._health.check_interval_seconds)

    async def check(self) -> None:
        """Check once."""
        timeout = self._health.check_timeout_seconds
        runs = [self._run.of_engine(one.program) for one in self._models]
        gateway, phases = await asyncio.gather(
            probe.accepts_connections(self._gateway.host, self._gateway.port, timeout),
            asyncio.gather(*(probe.probe_engine(run.engine_socket, timeout) for run in runs)),
        )
        failure, cause = probe.read_failure(self._run)
        stopped = {program for program, one in residency.read(self._run.residency).items() if not one.wanted}
        engines = [
            probe.see_engine(one, run, phase, stopped=one.program in stopped)
            for one, run, phase in zip(self._models, runs, phases, strict=True)
        ]
        engine = least_ready(engines)
        self._seen = Observation(
            engine=engine.phase,
            step=engine.step,
            models=tuple(model_status(one) for one in engines) if self._models[0].key else (),
            cpu_variant=engine.cpu_variant,
            gateway=gateway,
            draining=self._run.draining.exists(),
            failure=failure,
            cause=cause,
        )
        self._apply(self._seen)

    def _apply(self, seen: Observation, *, probed: bool = True) -> None:
        before = self._status
        after = advance(before, seen, self._clock(), probed=probed)
        if after.was_ready and not before.was_ready:
            self._run.ready.touch(mode=0o600)
        if (after.state, after.phase) != (before.state, before.phase):
            details = {"reason": after.reason, "detail": after.detail, "percent": percent(after)}
            known = {name: value for name, value in details.items() if value not in ("", None)}
            log.info("health changed", extra=fields(state=after.state, phase=after.phase, **known))
        if self._health.platform == "vast" and (line := pyworker_line(before, after)):
            self._print_line(line)
        self._status = after
