"""Linux processes: parent-death signal, subreaper, reaping of orphans, killing a whole session.

supervisord and everything it starts run in a session of their own, by which `up` finds the remaining processes,
whatever their parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_gguf.errors import LaunchError

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OPEN_FILES = 65_536


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of /proc/PID/stat in use."""

    pid: int
    state: str  # Z is a zombie
    parent: int
    session: int


def parse_stat(text: str) -> ProcessStat:
    """Parse /proc/PID/stat; the command name in it can contain spaces and parentheses."""
    pid, _, rest = text.partition(" (")
    state, parent, _group, session = rest.rpartition(") ")[2].split()[:4]
    return ProcessStat(int(pid), state, int(parent), int(session))


def all_processes(proc: Path = Path("/proc")) -> Iterator[ProcessStat]:
    """Yield every visible process without zombies."""
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it can exit meanwhile
            stat = parse_stat((entry / "stat").read_text(errors="replace"))
            if stat.state != "Z":
                yield stat


def session_members(session: int) -> list[int]:
    """Return the pids of the live processes in `session`."""
    return [process.pid for process in all_processes() if process.session == session]


def kill_all(pids: Sequence[int]) -> None:
    """Send SIGKILL to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def become_subreaper() -> None:
    """Become the parent of orphaned descendants instead of PID 1, where the kernel allows it."""
    _prctl_function()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(keep: int) -> None:
    """Wait for every exited child but `keep`, whose exit status the caller waits for."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == keep:
            return
        os.waitpid(found.si_pid, os.WNOHANG)


def raise_open_files_limit() -> None:
    """Raise the soft limit of open files, which programs inherit: every client connection uses one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def spawn(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], keep_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start `argv` in a new session; it gets SIGTERM when this process dies, even by SIGKILL.

    Call it from the main thread, before others are started: the signal is sent when the spawning *thread* exits.
    """
    try:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            pass_fds=keep_fds,
            start_new_session=True,
            preexec_fn=_set_parent_death_signal(os.getpid(), _prctl_function()),  # noqa: PLW1509 - no other thread runs yet
        )
    except OSError as error:
        raise LaunchError(f"{argv[0]} cannot be started: {error.strerror or error}") from error


def _prctl_function() -> Callable[..., int]:
    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return function


def _set_parent_death_signal(parent: int, prctl: Callable[..., int]) -> Callable[[], None]:
    def prepare() -> None:
        # A child inherits the signal mask and ignored signals; the parent of `up` can have ignored SIGTERM.
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the prctl
            os._exit(1)

    return prepare
