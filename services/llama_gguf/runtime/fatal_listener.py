"""supervisord's event listener: notices the program that cannot stay up, says why, and ends the appliance.

Gets its events from event_protocol; what it has to tell goes to stderr, its log. Keeps its memory in a file, so that
being killed itself costs nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llama_gguf.errors import ExitCode
from llama_gguf.logs import clean, fields
from llama_gguf.settings import RunDir

from . import failure as failures
from .crashes import Crash, CrashFile, Exit, last_exit, reason_to_give_up
from .failure import Failure
from .programs import ENGINE, LISTENER

if TYPE_CHECKING:
    from llama_gguf.settings.supervisor import Supervisor

log = logging.getLogger(__name__)

TAIL_LINES = 40
_TAIL_BYTES = 65_536
_SUPERVISORD_LOG_BYTES = 262_144


class Diagnosis(Protocol):
    """What an exit means."""

    @property
    def cause(self) -> str:
        """What went wrong."""

    @property
    def fix(self) -> str:
        """What to do about it."""

    @property
    def permanent(self) -> bool:
        """Whether trying again cannot help."""

    @property
    def configuration(self) -> bool:
        """Whether the configuration is wrong, or names what cannot be used."""


Diagnose = Callable[[Sequence[str], int | None, str | None], Diagnosis | None]
"""Takes the engine's last output lines, its exit code and its signal."""


class SupervisordCalls(Protocol):
    """What the listener asks of supervisord."""

    def shutdown(self) -> None:
        """Stop everything."""

    def stop_program(self, name: str) -> None:
        """Stop one program for good."""


class FatalListener:
    """Judges each end of a program; on a fatal one records the failure and stops the appliance, or the program."""

    def __init__(
        self,
        run: RunDir,
        rules: Supervisor,
        supervisord: SupervisordCalls,
        diagnose: Diagnose,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._rules = rules
        self._supervisord = supervisord
        self._diagnose = diagnose
        self._clock = clock
        self._crashes = CrashFile(run.crashes)

    def handle(self, event: str, payload: dict[str, str]) -> None:
        """Judge one event: EXITED, BACKOFF or FATAL of one program."""
        program = payload["processname"]
        if self._run.draining.exists():
            return  # asked to stop: how programs end now is no failure
        ended = self._how_it_ended(program)
        now = self._clock()
        crashes = self._crashes.read()
        if event == "EXITED":
            crashes = self._crashes.add(Crash(program, int(payload.get("pid", 0)), now, ended.code, ended.signal))
        if event != "FATAL":
            log.warning("program ended, will be restarted", extra=fields(name=program, how=str(ended), state=event))
        if program == LISTENER or self._run.failure.exists():
            return
        was_ready = self._run.ready.exists()
        reason = reason_to_give_up(event, program, ended, crashes, self._rules, was_ready=was_ready, now=now)
        tail = tail_lines(self._run.log(program))
        diagnosis = self._diagnose(tail, ended.code, ended.signal) if program == ENGINE else None
        if reason is None and diagnosis is not None and diagnosis.permanent:
            reason = f"{program} cannot start ({ended}): a restart cannot help"
        if reason is not None:
            self._give_up(program, ended, reason, tail, diagnosis)

    def _how_it_ended(self, program: str) -> Exit:
        current = self._run.supervisord_log
        rotated = current.with_name(current.name + ".1")
        return last_exit("".join(_tail_text(path, _SUPERVISORD_LOG_BYTES) for path in (rotated, current)), program)

    def _give_up(
        self, program: str, ended: Exit, reason: str, tail: Sequence[str], diagnosis: Diagnosis | None
    ) -> None:
        # Not the same as what a restart cannot mend: an engine built for another CPU is no fault of the configuration.
        configuration = diagnosis.configuration if diagnosis else ended.code == ExitCode.CONFIG
        failure = Failure(
            program=program,
            exit_code=ended.code,
            signal=ended.signal,
            summary=reason,
            cause=diagnosis.cause if diagnosis else last_error(tail),
            fix=diagnosis.fix if diagnosis else last_hint(tail),
            log_tail=tuple(tail),
            at=self._clock(),
            exit_status=ExitCode.CONFIG if configuration else ExitCode.UNAVAILABLE,
        )
        failures.write(failure, self._run.failure)
        log.error("giving up", extra=fields(name=program, reason=reason, cause=failure.cause, fix=failure.fix))
        if self._rules.exit_on_failure:
            self._supervisord.shutdown()
        else:
            self._supervisord.stop_program(program)


def _tail_text(path: Path, max_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def tail_lines(path: Path, count: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log, control characters replaced; none when it can't be read."""
    return [clean(line) for line in _tail_text(path, _TAIL_BYTES).splitlines() if line.strip()][-count:]


def last_error(tail: Sequence[str]) -> str:
    """Return the last line that states an error, as our programs write it, else the very last line."""
    for line in reversed(tail):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return tail[-1] if tail else ""


def last_hint(tail: Sequence[str]) -> str:
    """Return the last hint that a program of ours gave, or nothing."""
    return next((line.removeprefix("hint: ") for line in reversed(tail) if line.startswith("hint: ")), "")
