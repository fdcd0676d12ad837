"""supervisord's event listener: detects a program that cannot stay up, records why, and stops the appliance.

Gets its events from event_protocol and logs to stderr. Stores the crashes in a file, so that none is lost when it is
killed itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from llama_gguf.errors import ExitCode
from llama_gguf.logs import fields
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.crashes import Crash, CrashFile
from llama_gguf.rundir.exits import UNKNOWN_STATUS, ExitStatus, ProcessExit, process_exits, read_supervisord_log
from llama_gguf.rundir.failure import Failure
from llama_gguf.settings import RunDir
from llama_gguf.settings.locations import is_engine

from .log_tail import last_error, last_hint, tail_lines
from .programs import LISTENER
from .restart_policy import reason_to_give_up

if TYPE_CHECKING:
    from llama_gguf.settings.sections.supervisor import Supervisor

log = logging.getLogger(__name__)


_LINES_OF_AN_ABORT = 400  # a backtrace, with a line for each thread, comes after the reason


class Diagnosis(Protocol):
    """Why a program exited."""

    @property
    def cause(self) -> str:
        """What went wrong."""

    @property
    def fix(self) -> str:
        """What to do about it."""

    @property
    def permanent(self) -> bool:
        """Whether a restart cannot help."""

    @property
    def configuration(self) -> bool:
        """Whether the configuration is wrong, or names what cannot be used."""


Diagnose = Callable[[str, Sequence[str], int | None, str | None], Diagnosis | None]
"""Called with the engine's program, its last output lines, its exit code and its signal."""


class SupervisordCalls(Protocol):
    """The calls to supervisord that the listener makes."""

    def shutdown(self) -> None:
        """Stop everything."""

    def stop_program(self, name: str) -> None:
        """Stop one program; supervisord does not restart it."""

    def start_program(self, name: str) -> None:
        """Start one program that is FATAL for supervisord."""


class FatalListener:
    """Decides after each exit of a program; a fatal one it records as failure and stops the appliance, or the program.

    An engine that exits by an illegal instruction while another variant of its CPU code is left is restarted as often
    as there are variants, past supervisord's own retries. `gave_up` is called before anything is stopped. The appliance
    goes on without the engines in `optional`: only these models fail then. `needs_less` says of an engine's program and
    exit whether its next start needs less memory than that one had; such exits do not count either.
    """

    def __init__(
        self,
        run: RunDir,
        rules: Supervisor,
        supervisord: SupervisordCalls,
        diagnose: Diagnose,
        *,
        gave_up: Callable[[str, ExitStatus], None],
        optional: Collection[str] = (),
        needs_less: Callable[[str, ProcessExit], bool] = lambda _program, _end: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._rules = rules
        self._supervisord = supervisord
        self._diagnose = diagnose
        self._gave_up = gave_up
        self._optional = optional
        self._needs_less = needs_less
        self._clock = clock
        self._crashes = CrashFile(run.crashes)
        self._restarted_after: set[int] = set()  # pids after whose exit one was started past supervisord's retries

    def handle(self, event: str, payload: dict[str, str]) -> None:
        """Handle one event: EXITED, BACKOFF or FATAL of one program."""
        program = payload["processname"]
        if self._run.draining.exists():
            return  # a stop was requested: no exit is a failure now
        history = process_exits(read_supervisord_log(self._run), program)
        status = history[-1].status if history else UNKNOWN_STATUS
        mitigated = is_engine(program) and self._is_mitigated(program, event, history)
        now = self._clock()
        crashes = self._crashes.read()
        if event == "EXITED":
            pid = int(payload.get("pid", 0))
            crashes = self._crashes.add(Crash(program, pid, now, status.code, status.signal, mitigated))
        if event != "FATAL":
            log.warning("program exited, will be restarted", extra=fields(name=program, how=str(status), state=event))
        if program == LISTENER or self._run.failure.exists():
            return
        if program in self._optional and self._run.of_engine(program).engine_failure.exists():
            return
        if mitigated:
            if event == "FATAL":
                self._supervisord.start_program(program)
                self._restarted_after.add(history[-1].pid)
            return
        was_ready = self._run.ready.exists() and program not in self._optional
        reason = reason_to_give_up(event, program, status, crashes, self._rules, was_ready=was_ready, now=now)
        tail = tail_lines(self._run.log(program))
        diagnosis = self._diagnosis_of(program, status) if is_engine(program) else None
        if reason is None and diagnosis is not None and diagnosis.permanent:
            what = "cannot stay up" if was_ready else "cannot start"
            reason = f"{program} {what} ({status}): a restart cannot help"
        if reason is not None:
            self._give_up(program, status, reason, tail, diagnosis)

    def _diagnosis_of(self, program: str, status: ExitStatus) -> Diagnosis | None:
        lines = tail_lines(self._run.log(program), _LINES_OF_AN_ABORT)
        return self._diagnose(program, lines, status.code, status.signal)

    def _is_mitigated(self, program: str, event: str, history: Sequence[ProcessExit]) -> bool:
        """Return whether the engine's next start avoids the cause of its exit."""
        if not history or (event == "FATAL" and history[-1].pid in self._restarted_after):
            return False  # nothing has run since: supervisord could not start it
        record = engine_variant.read(self._run.of_engine(program).engine_variant)
        status = history[-1].status

        def is_mitigated(end: ProcessExit) -> bool:
            return engine_variant.is_mitigated(record, end) or self._needs_less(program, end)

        if is_mitigated(history[-1]):
            return True
        if event != "FATAL" or status.illegal_instruction or status.code == ExitCode.CONFIG:
            return False
        # supervisord counted mitigated exits as well, so those after them have not had all their retries.
        counted = history[-self._rules.start_retries - 1 :]
        return any(is_mitigated(end) for end in counted)

    def _give_up(
        self, program: str, status: ExitStatus, reason: str, tail: Sequence[str], diagnosis: Diagnosis | None
    ) -> None:
        # Not the same as `permanent`: an engine built for another CPU is no error in the configuration.
        configuration = diagnosis.configuration if diagnosis else status.code == ExitCode.CONFIG
        failure = Failure(
            program=program,
            exit_code=status.code,
            signal=status.signal,
            summary=reason,
            cause=diagnosis.cause if diagnosis else last_error(tail),
            fix=diagnosis.fix if diagnosis else last_hint(tail),
            log_tail=tuple(tail),
            at=self._clock(),
            exit_status=ExitCode.CONFIG if configuration else ExitCode.UNAVAILABLE,
        )
        optional = program in self._optional
        failures.write(failure, self._run.of_engine(program).engine_failure if optional else self._run.failure)
        self._gave_up(program, status)
        log.error("giving up", extra=fields(name=program, reason=reason, cause=failure.cause, fix=failure.fix))
        if self._rules.exit_on_failure and not optional:
            self._supervisord.shutdown()
        else:
            self._supervisord.stop_program(program)
