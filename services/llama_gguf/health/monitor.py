"""Looks at the appliance again and again, and holds the status that the server answers from."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_gguf.health.responses import percent, vast_line
from llama_gguf.logs import fields
from llama_gguf.rundir import engine_phase
from llama_gguf.settings import RunDir
from llama_gguf.states import ServiceState

from . import probe
from .state import Seen, Status, advance

if TYPE_CHECKING:
    from llama_gguf.settings import Settings

log = logging.getLogger(__name__)


class Monitor:
    """The one owner of the status. `tell` gets the raw lines that a platform's log watcher waits for."""

    def __init__(
        self,
        run: RunDir,
        settings: Settings,
        *,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._health = settings.health
        self._gateway = settings.gateway
        self._tell = tell
        self._clock = clock
        self._seen = Seen()
        # This process may be new while the appliance is not: the marker remembers for it.
        self._status = Status(ServiceState.STARTING, clock(), was_ready=run.ready.exists())

    def current(self) -> Status:
        """Return the status, with what the files say this very moment: a stop must be seen at once."""
        failure, cause = probe.read_failure(self._run)
        now = replace(self._seen, draining=self._run.draining.exists(), failure=failure, cause=cause)
        self._take(now, again=True)
        return self._status

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._health.check_interval_seconds)

    async def look(self) -> None:
        """Look once."""
        timeout = self._health.check_timeout_seconds
        engine, gateway = await asyncio.gather(
            probe.ask_engine(self._run.engine_socket, timeout),
            probe.accepts(self._gateway.host, self._gateway.port, timeout),
        )
        failure, cause = probe.read_failure(self._run)
        self._seen = Seen(
            engine=engine,
            step=engine_phase.read(self._run.engine_phase),
            cpu_variant=probe.read_cpu_variant(self._run),
            gateway=gateway,
            draining=self._run.draining.exists(),
            failure=failure,
            cause=cause,
        )
        self._take(self._seen)

    def _take(self, seen: Seen, *, again: bool = False) -> None:
        before = self._status
        after = advance(before, seen, self._clock(), again=again)
        if after.was_ready and not before.was_ready:
            self._run.ready.touch(mode=0o600)
        if (after.state, after.phase) != (before.state, before.phase):
            told = {"reason": after.reason, "detail": after.detail, "percent": percent(after)}
            said = {name: value for name, value in told.items() if value not in ("", None)}
            log.info("health changed", extra=fields(state=after.state, phase=after.phase, **said))
        if self._health.platform == "vast" and (line := vast_line(before, after)):
            self._tell(line)
        self._status = after
