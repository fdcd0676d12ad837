"""The rim: makes the run directory, starts supervisord, passes signals on, and ends with an honest exit code.

`launch` blocks until everything has stopped. It returns 0 after a stop that was asked for and the failure's exit
status otherwise. Afterwards nothing of it runs, and no socket and no engine key is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from llama_gguf.errors import ExitCode, LaunchError
from llama_gguf.logs import fields
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.runtime import prepare_rundir, process
from llama_gguf.runtime.log_follower import FileTail, Follower
from llama_gguf.runtime.program_environment import supervised_environment
from llama_gguf.runtime.supervisord_client import Supervisord, SupervisordError
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir
from llama_gguf.settings.redaction import masked_environment

from .log_tail import tail_lines
from .programs import GATEWAY, LISTENER, Program
from .screen import watching
from .supervisord import LOGS_LINK, render_ini

log = logging.getLogger(__name__)

SUPERVISORD = "supervisord"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_WAKE_SECONDS = 10.0
_TICK_SECONDS = 0.5
_STOPPING_TICK_SECONDS = 0.05
_MARGIN_SECONDS = 3.0
_WATCH_SECONDS = 5.0
_RPC_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LaunchInputs:
    """What to run and where its output goes."""

    snapshot: Snapshot
    programs: Sequence[Program]
    env: Mapping[str, str]
    stdout: int  # descriptor that gets the programs' log lines
    stderr: TextIO  # gets the reason of a failure


def launch(what: LaunchInputs) -> int:
    """Run the appliance to its end and return the exit code. Raises LaunchError when it cannot even be started."""
    # Whatever the caller's mask: nothing we or our programs write is for others. The group may read, because images
    # run as any uid with group 0.
    os.umask(os.umask(0) | 0o027)
    with _signals() as signals:
        run = what.snapshot.locations.run
        lock = prepare_rundir.prepare(run)
        try:
            process.become_subreaper()
            process.raise_open_files_limit()
            env = program_env(what.env, run, sys.executable, what.programs)
            _write_files(what, env)
            code = _Appliance(what, env, signals, lock).run()
        finally:
            prepare_rundir.tidy(run)
            os.close(lock)
        if code != ExitCode.OK:
            _hold(what, signals)
        return code


def _write_files(what: LaunchInputs, env: Mapping[str, str]) -> None:
    locations, settings = what.snapshot.locations, what.snapshot.settings
    run = locations.run
    prepare_rundir.write_engine_key(run)
    prepare_rundir.link_cwd(run)
    prepare_rundir.link_logs(locations, settings.logging, tuple(program.name for program in what.programs))
    snapshots.write(what.snapshot, run.snapshot)
    ini = render_ini(what.programs, settings.logging, variables=env.keys(), as_root=os.geteuid() == 0)
    run.supervisord_ini.write_text(ini, encoding="ascii")


def program_env(env: Mapping[str, str], run: RunDir, python: str, programs: Sequence[Program]) -> dict[str, str]:
    """Return the environment of supervisord: what its programs need of ours, with our interpreter first on PATH.

    supervisord finds the interpreter through PATH, so that its directory need not stand in the ini.
    """
    directory = str(Path(python).parent)
    if os.pathsep in directory:
        raise LaunchError(
            f"{python}: a Python below a directory with `{os.pathsep}` in its name cannot be used",
            hint="install the appliance somewhere else",
            exit_code=ExitCode.CONFIG,
        )
    path = os.pathsep.join(filter(None, (directory, env.get("PATH", os.defpath))))
    return {**supervised_environment(env, programs), "PATH": path, RUN_DIR_VARIABLE: str(run.root)}


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Turn our signals into bytes on a pipe while the block runs; yield the end to read.

    Installed before anything else: for a PID 1 the kernel ignores every signal that has no handler.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    handlers = {number: signal.signal(number, lambda _number, _frame: None) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _received(reader: int, timeout_seconds: float) -> bytes:
    """Wait for signals and return their numbers; empty when none came in time."""
    if select.select([reader], [], [], max(0.0, timeout_seconds))[0]:
        return os.read(reader, 512)
    return b""


class _Appliance:
    """supervisord while it lives: one loop over signals, dead children and deadlines."""

    def __init__(
        self,
        what: LaunchInputs,
        env: Mapping[str, str],
        signals: int,
        lock: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._env = env
        self._run = what.snapshot.locations.run
        self._signals = signals
        self._lock = lock
        self._clock = clock
        self._rpc = Supervisord(self._run.supervisord_socket, timeout_seconds=_RPC_SECONDS)
        self._stop_deadline: float | None = None
        self._stop_asked = False
        self._told: Failure | None = None
        self._watch_at = clock() + _WATCH_SECONDS
        self._hangup_stops = os.isatty(0)
        self._screen = watching(what.stdout, what.snapshot.settings.logging)

    def run(self) -> int:
        """Spawn supervisord, serve until it has ended, and return the exit code."""
        argv = (sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", self._run.supervisord_ini.name)
        child = process.spawn(argv, cwd=self._run.root, env=self._env, keep_fds=(self._lock,))
        follower = self._follower()
        follower.start()
        try:
            self._wake(child)
            self._serve(child)
        finally:
            process.kill_all(process.session_members(child.pid))
            status = child.wait()
            process.reap_orphans(keep=0)
            follower.stop()
        self._tell_failure()
        return self._exit_code(status)

    def _follower(self) -> Follower:
        logging_settings = self._what.snapshot.settings.logging
        # Through the link that names this start's directory, not through a link that a next start may move.
        directory = (self._run.root / LOGS_LINK).resolve()
        tails = {
            program.name: FileTail(
                directory / f"{program.name}.log",
                backups=logging_settings.backups,
                max_bytes=logging_settings.max_bytes,
            )
            for program in self._what.programs
        }
        render = self._screen.render if self._screen is not None else None
        return Follower(tails, self._what.stdout, form=logging_settings.format, render=render)

    def _wake(self, child: subprocess.Popen[bytes]) -> None:
        """Talk to supervisord as soon as it listens: its loop, which starts programs, else turns only once a second."""
        deadline = self._clock() + _WAKE_SECONDS
        while self._clock() < deadline and child.poll() is None:
            if self._run.supervisord_socket.exists():
                with contextlib.suppress(SupervisordError):
                    self._rpc.state()
                    return
            time.sleep(0.01)

    def _serve(self, child: subprocess.Popen[bytes]) -> None:
        while child.poll() is None:
            stopping = self._stop_deadline is not None
            for number in _received(self._signals, _STOPPING_TICK_SECONDS if stopping else _TICK_SECONDS):
                self._on_signal(signal.Signals(number), child)
            if stopping:
                self._rpc.nudge()  # it may have missed the end of a program, by a hair, and would wait for a second
            process.reap_orphans(keep=child.pid)
            if not self._tells_last:
                self._tell_failure()
            self._watch(child)
            if self._stop_deadline is not None and self._clock() > self._stop_deadline:
                log.error("stopping takes too long; killing what is left")
                return

    def _on_signal(self, number: signal.Signals, child: subprocess.Popen[bytes]) -> None:
        if number is signal.SIGCHLD:
            return
        if number is signal.SIGHUP and not self._hangup_stops:
            with contextlib.suppress(SupervisordError):
                self._rpc.signal_program(GATEWAY, "HUP")
        elif not self._stop_asked:
            log.info("stopping: running requests may finish", extra=fields(signal=number.name))
            self._stop_asked = True
            self._run.draining.touch(mode=0o600)
            self._begin_stop(child)
        else:
            log.warning("stopping at once", extra=fields(signal=number.name))
            process.kill_all([pid for pid in process.session_members(child.pid) if pid != child.pid])

    def _begin_stop(self, child: subprocess.Popen[bytes]) -> None:
        self._stop_deadline = self._clock() + sum(p.stop_seconds for p in self._what.programs) + _MARGIN_SECONDS
        try:
            self._rpc.shutdown()
        except SupervisordError as error:
            log.debug("supervisord gets a signal instead", extra=fields(reason=str(error)))
            child.send_signal(signal.SIGTERM)

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Step in where the listener, whose task it is, cannot be started itself."""
        if self._clock() < self._watch_at or self._stop_deadline is not None:
            return
        self._watch_at = self._clock() + _WATCH_SECONDS
        with contextlib.suppress(SupervisordError):
            listener = next((info for info in self._rpc.programs() if info.name == LISTENER), None)
            if listener is not None and listener.state == "FATAL" and not self._run.failure.exists():
                self._record(LISTENER, None, None, f"{LISTENER} cannot be started: {listener.problem}")
                self._begin_stop(child)

    @property
    def _tells_last(self) -> bool:
        """Whether the failure is told when all has ended: on a terminal it would scroll away with what others say."""
        return self._screen is not None and self._what.snapshot.settings.supervisor.exit_on_failure

    def _tell_failure(self) -> None:
        if self._told is None and (found := failures.read(self._run.failure)) is not None:
            self._told = found
            self._what.stderr.write(self._rendered(found))
            self._what.stderr.flush()

    def _rendered(self, found: Failure) -> str:
        log_file = self._run.supervisord_log if found.program == SUPERVISORD else self._run.log(found.program)
        stderr = self._what.stderr
        if self._screen is None or not stderr.isatty():
            return failures.render(found, log_file)
        # supervisord's log is not followed, so none of it has been seen.
        seen = self._screen.shows if found.program != SUPERVISORD else lambda _program, _line: False
        return failures.render(found, log_file, columns=self._screen.columns, seen=seen)

    def _record(self, program: str, code: int | None, signal_name: str | None, summary: str) -> None:
        log_file = self._run.supervisord_log if program == SUPERVISORD else self._run.log(program)
        failure = Failure(
            program=program,
            exit_code=code,
            signal=signal_name,
            summary=summary,
            cause="",
            fix="please report it with the output of `llama-gguf diagnostics`",
            log_tail=tuple(tail_lines(log_file, 10)),
            at=time.time(),
        )
        failures.write(failure, self._run.failure)

    def _exit_code(self, status: int) -> int:
        if self._told is not None:
            return self._told.exit_status
        if self._stop_asked:
            return ExitCode.OK
        how = f"exit status {status}" if status >= 0 else f"ended by {signal.Signals(-status).name}"
        self._record(
            SUPERVISORD,
            status if status >= 0 else None,
            signal.Signals(-status).name if status < 0 else None,
            f"supervisord ended although nobody asked it to ({how})",
        )
        self._tell_failure()
        return ExitCode.UNAVAILABLE


def _hold(what: LaunchInputs, signals: int) -> None:
    """Stay for `supervisor.hold_seconds` after a failure, so that somebody can look inside; a signal ends it."""
    seconds = what.snapshot.settings.supervisor.hold_seconds
    if not seconds:
        return
    lines = [f"llama-gguf: holding for {seconds:.0f} s after the failure (supervisor.hold_seconds); environment:"]
    lines += [f"  {name}={value}" for name, value in masked_environment(what.env).items()]
    what.stderr.write("\n".join(lines) + "\n")
    what.stderr.flush()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if any(number != signal.SIGCHLD for number in _received(signals, left)):
            return
        process.reap_orphans(keep=0)
