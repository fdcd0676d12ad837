"""Prepares the run directory, runs supervisord, forwards signals, and returns the exit code.

`launch` blocks until everything has stopped. It returns 0 after a requested stop and the failure's exit status
otherwise. No process, socket or engine key is left then.
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
from llama_gguf.rundir.exits import UNKNOWN_STATUS, ExitStatus
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.rundir.supervisord_client import Supervisord, SupervisordError
from llama_gguf.runtime import prepare_rundir, process
from llama_gguf.runtime.log_follower import FileTail, Follower
from llama_gguf.runtime.program_environment import supervised_environment
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir
from llama_gguf.settings.shown_environment import shown_environment

from .log_tail import tail_lines
from .programs import GATEWAY, LISTENER, Program
from .screen import open_screen
from .supervisord import LOGS_LINK, render_ini

log = logging.getLogger(__name__)

SUPERVISORD = "supervisord"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_FIRST_CALL_SECONDS = 10.0
_POLL_SECONDS = 0.5
_STOPPING_POLL_SECONDS = 0.05
_STOP_MARGIN_SECONDS = 3.0
_LISTENER_CHECK_SECONDS = 5.0
_RPC_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LaunchInputs:
    """What to run and where its output goes."""

    snapshot: Snapshot
    programs: Sequence[Program]
    env: Mapping[str, str]
    stdout: int  # file descriptor for the programs' log lines
    stderr: TextIO  # for the failure


def launch(inputs: LaunchInputs) -> int:
    """Run the appliance to its end and return the exit code. Raises LaunchError when it cannot be started."""
    # Whatever the caller's umask: others get no access. The group can read, because images run as any uid with group 0.
    os.umask(os.umask(0) | 0o027)
    with _signals() as signals:
        run = inputs.snapshot.locations.run
        lock = prepare_rundir.prepare(run)
        try:
            process.become_subreaper()
            process.raise_open_files_limit()
            env = program_env(inputs.env, run, sys.executable, inputs.programs)
            _write_files(inputs, env)
            code = _Appliance(inputs, env, signals, lock).run()
        finally:
            prepare_rundir.clean_up(run)
            os.close(lock)
        if code != ExitCode.OK:
            _hold(inputs, signals)
        return code


def _write_files(inputs: LaunchInputs, env: Mapping[str, str]) -> None:
    locations, settings = inputs.snapshot.locations, inputs.snapshot.settings
    run = locations.run
    for one in inputs.snapshot.models:
        prepare_rundir.write_engine_key(run.of_engine(one.program))
    prepare_rundir.link_cwd(run)
    prepare_rundir.link_logs(locations, settings.logging, tuple(program.name for program in inputs.programs))
    snapshots.write(inputs.snapshot, run.snapshot)
    ini = render_ini(inputs.programs, settings.logging, variables=env.keys(), as_root=os.geteuid() == 0)
    run.supervisord_ini.write_text(ini, encoding="ascii")


def program_env(env: Mapping[str, str], run: RunDir, python: str, programs: Sequence[Program]) -> dict[str, str]:
    """Return the environment of supervisord: what its programs need of ours, with our interpreter first in PATH.

    supervisord finds the interpreter through PATH, so that its directory is not needed in the ini.
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
    """Write signals as bytes to a pipe (self-pipe) while the block runs; yield its read end.

    Installed before anything else: the kernel ignores every signal to PID 1 that has no handler.
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
    """Wait for signals and return their numbers; empty at the timeout."""
    if select.select([reader], [], [], max(0.0, timeout_seconds))[0]:
        return os.read(reader, 512)
    return b""


class _Appliance:
    """supervisord while it runs: one loop over signals, exited children and deadlines."""

    def __init__(
        self,
        inputs: LaunchInputs,
        env: Mapping[str, str],
        signals: int,
        lock: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inputs = inputs
        self._env = env
        self._run = inputs.snapshot.locations.run
        self._signals = signals
        self._lock = lock
        self._clock = clock
        self._rpc = Supervisord(self._run.supervisord_socket, timeout_seconds=_RPC_TIMEOUT_SECONDS)
        self._stop_deadline: float | None = None
        self._stop_asked = False
        self._reported: Failure | None = None
        self._listener_check_at = clock() + _LISTENER_CHECK_SECONDS
        self._hangup_stops = os.isatty(0)
        self._screen = open_screen(inputs.stdout, inputs.snapshot.settings.logging)

    def run(self) -> int:
        """Spawn supervisord, wait until it has exited, and return the exit code."""
        argv = (sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", self._run.supervisord_ini.name)
        child = process.spawn(argv, cwd=self._run.root, env=self._env, keep_fds=(self._lock,))
        follower = self._follower()
        follower.start()
        try:
            self._start_programs(child)
            self._wait(child)
        finally:
            process.kill_all(process.session_members(child.pid))
            returncode = child.wait()
            process.reap_orphans(keep=0)
            follower.stop()
        self._report_failure()
        return self._exit_code(returncode)

    def _follower(self) -> Follower:
        logging_settings = self._inputs.snapshot.settings.logging
        # The target of the link, because the next start replaces the link.
        directory = (self._run.root / LOGS_LINK).resolve()
        tails = {
            program.name: FileTail(
                directory / f"{program.name}.log",
                backups=logging_settings.backups,
                max_bytes=logging_settings.max_bytes,
            )
            for program in self._inputs.programs
        }
        render = self._screen.render if self._screen is not None else None
        return Follower(tails, self._inputs.stdout, log_format=logging_settings.format, render=render)

    def _start_programs(self, child: subprocess.Popen[bytes]) -> None:
        """Call supervisord as soon as it listens: its loop, which starts programs, otherwise runs once a second."""
        deadline = self._clock() + _FIRST_CALL_SECONDS
        while self._clock() < deadline and child.poll() is None:
            if self._run.supervisord_socket.exists():
                with contextlib.suppress(SupervisordError):
                    self._rpc.state()
                    return
            time.sleep(0.01)

    def _wait(self, child: subprocess.Popen[bytes]) -> None:
        while child.poll() is None:
            stopping = self._stop_deadline is not None
            for number in _received(self._signals, _STOPPING_POLL_SECONDS if stopping else _POLL_SECONDS):
                self._on_signal(signal.Signals(number), child)
            if stopping:
                self._rpc.wake()  # it may just have missed the exit of a program, and would wait for a second
            process.reap_orphans(keep=child.pid)
            if not self._reports_last:
                self._report_failure()
            self._check_listener(child)
            if self._stop_deadline is not None and self._clock() > self._stop_deadline:
                log.error("stop deadline exceeded; sending SIGKILL to the remaining processes")
                return

    def _on_signal(self, number: signal.Signals, child: subprocess.Popen[bytes]) -> None:
        if number is signal.SIGCHLD:
            return
        if number is signal.SIGHUP and not self._hangup_stops:
            with contextlib.suppress(SupervisordError):
                self._rpc.signal_program(GATEWAY, "HUP")
        elif not self._stop_asked:
            log.info("stopping: waiting for running requests", extra=fields(signal=number.name))
            self._stop_asked = True
            self._run.draining.touch(mode=0o600)
            self._begin_stop(child)
        else:
            log.warning("stopping immediately", extra=fields(signal=number.name))
            process.kill_all([pid for pid in process.session_members(child.pid) if pid != child.pid])

    def _begin_stop(self, child: subprocess.Popen[bytes]) -> None:
        self._stop_deadline = self._clock() + sum(p.stop_seconds for p in self._inputs.programs) + _STOP_MARGIN_SECONDS
        try:
            self._rpc.shutdown()
        except SupervisordError as error:
            log.debug("supervisord is stopped with SIGTERM instead", extra=fields(reason=str(error)))
            child.send_signal(signal.SIGTERM)

    def _check_listener(self, child: subprocess.Popen[bytes]) -> None:
        """Record a failure and stop where the listener, which would do so, cannot be started itself."""
        if self._clock() < self._listener_check_at or self._stop_deadline is not None:
            return
        self._listener_check_at = self._clock() + _LISTENER_CHECK_SECONDS
        with contextlib.suppress(SupervisordError):
            listener = next((info for info in self._rpc.programs() if info.name == LISTENER), None)
            if listener is not None and listener.state == "FATAL" and not self._run.failure.exists():
                self._record(LISTENER, UNKNOWN_STATUS, f"{LISTENER} cannot be started: {listener.problem}")
                self._begin_stop(child)

    @property
    def _reports_last(self) -> bool:
        """Whether the failure is printed after everything has stopped: on a terminal later log lines would hide it."""
        return self._screen is not None and self._inputs.snapshot.settings.supervisor.exit_on_failure

    def _report_failure(self) -> None:
        if self._reported is None and (found := failures.read(self._run.failure)) is not None:
            self._reported = found
            self._inputs.stderr.write(self._rendered(found))
            self._inputs.stderr.flush()

    def _rendered(self, found: Failure) -> str:
        log_file = self._run.supervisord_log if found.program == SUPERVISORD else self._run.log(found.program)
        stderr = self._inputs.stderr
        if self._screen is None or not stderr.isatty():
            return failures.render(found, log_file)
        # supervisord's log is not copied, so none of it is on the screen.
        seen = self._screen.shows if found.program != SUPERVISORD else lambda _program, _line: False
        return failures.render(found, log_file, columns=self._screen.columns, seen=seen)

    def _record(self, program: str, status: ExitStatus, summary: str) -> None:
        log_file = self._run.supervisord_log if program == SUPERVISORD else self._run.log(program)
        failure = Failure(
            program=program,
            exit_code=status.code,
            signal=status.signal,
            summary=summary,
            cause="",
            fix="please report it with the output of `llama-gguf diagnostics`",
            log_tail=tuple(tail_lines(log_file, 10)),
            at=time.time(),
        )
        failures.write(failure, self._run.failure)

    def _exit_code(self, returncode: int) -> int:
        if self._reported is not None:
            return self._reported.exit_status
        if self._stop_asked:
            return ExitCode.OK
        status = ExitStatus(returncode, None) if returncode >= 0 else ExitStatus(None, signal.Signals(-returncode).name)
        self._record(SUPERVISORD, status, f"supervisord exited unexpectedly ({status})")
        self._report_failure()
        return ExitCode.UNAVAILABLE


def _hold(inputs: LaunchInputs, signals: int) -> None:
    """Keep the container running for `supervisor.hold_seconds` after a failure, for inspection; a signal ends it."""
    seconds = inputs.snapshot.settings.supervisor.hold_seconds
    if not seconds:
        return
    lines = [f"llama-gguf: holding for {seconds:.0f} s after the failure (supervisor.hold_seconds); environment:"]
    lines += [f"  {name}={value}" for name, value in shown_environment(inputs.env).items()]
    inputs.stderr.write("\n".join(lines) + "\n")
    inputs.stderr.flush()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if any(number != signal.SIGCHLD for number in _received(signals, left)):
            return
        process.reap_orphans(keep=0)
