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
from llama_gguf.rundir import engine_phase
from llama_gguf.settings import RunDir
from llama_gguf.states import ServiceState

from . import probe
from .state import Observation, Status, advance

if TYPE_CHECKING:
    from llama_gguf.settings import Settings

log = logging.getLogger(__name__)


class Monitor:
    """The one owner of the status. `print_line` gets the raw lines that a platform's log watcher waits for."""

    def __init__(
        self,
        run: RunDir,
        settings: Settings,
        *,
        print_line: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._health = settings.health
        self._gateway = settings.gateway
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
        engine, gateway = await asyncio.gather(
            probe.probe_engine(self._run.engine_socket, timeout),
            probe.accepts_connections(self._gateway.host, self._gateway.port, timeout),
        )
        failure, cause = probe.read_failure(self._run)
        self._seen = Observation(
            engine=engine,
            step=engine_phase.read(self._run.engine_phase),
            cpu_variant=probe.read_cpu_variant(self._run),
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
