"""Linux processes: spawn one that dies with us, adopt and reap orphans, find and kill a whole session.

supervisord runs in a session of its own, and so does everything it starts: the session is how `up` finds what is left,
whoever the parent is by then.
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
    """The part of /proc/PID/stat that we need."""

    pid: int
    state: str  # Z is a zombie: dead, not yet waited for
    parent: int
    session: int


def parse_stat(text: str) -> ProcessStat:
    """Parse /proc/PID/stat; the command name in it may hold spaces and parentheses."""
    pid, _, rest = text.partition(" (")
    state, parent, _group, session = rest.rpartition(") ")[2].split()[:4]
    return ProcessStat(int(pid), state, int(parent), int(session))


def all_processes(proc: Path = Path("/proc")) -> Iterator[ProcessStat]:
    """Yield every live process that can be seen; zombies are left out."""
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it may end while we look
            stat = parse_stat((entry / "stat").read_text(errors="replace"))
            if stat.state != "Z":
                yield stat


def session_members(session: int) -> list[int]:
    """Return the pids of the live processes in `session`."""
    return [process.pid for process in all_processes() if process.session == session]


def kill_all(pids: Sequence[int]) -> None:
    """Send SIGKILL to each; those that are gone already don't matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def become_subreaper() -> None:
    """Have orphans of our descendants handed to us instead of to PID 1, as far as the kernel lets us."""
    _prctl_function()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(keep: int) -> None:
    """Collect every dead child but `keep`, whose exit status somebody else waits for."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == keep:
            return
        os.waitpid(found.si_pid, os.WNOHANG)


def raise_open_files_limit() -> None:
    """Lift the soft limit of open files, which programs inherit: every client connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def spawn(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], keep_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, such that it gets SIGTERM should we die without a word (kill -9).

    Call it from the main thread, before any other runs: the signal comes at the end of the *thread* that spawned.
    """
    try:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            pass_fds=keep_fds,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid(), _prctl_function()),  # noqa: PLW1509 - no other thread runs yet
        )
    except OSError as error:
        raise LaunchError(f"{argv[0]} cannot be started: {error.strerror or error}") from error


def _prctl_function() -> Callable[..., int]:
    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return function


def _die_with_parent(parent: int, prctl: Callable[..., int]) -> Callable[[], None]:
    def prepare() -> None:
        # A process blocks and ignores what its parent did; `up` may itself run under something that ignores SIGTERM.
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare
