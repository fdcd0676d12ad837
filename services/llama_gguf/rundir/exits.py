"""How the programs exited, from supervisord's log: its RPC reports neither signals nor exits within the first second.

supervisord logs an exit before it restarts the program, so a program that starts finds the exit before it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llama_gguf.settings import RunDir

_LINE = re.compile(
    r"spawned: '(?P<spawned>[^']+)' with pid (?P<pid>\d+)$"
    r"|exited: (?P<exited>\S+) \((?:exit status (?P<code>\d+)|terminated by (?P<signal>\w+)[^;]*|.*); "
    r"(?:not )?expected\)"
)
_LOG_BYTES = 262_144
_ILLEGAL_INSTRUCTION_CODE = 132  # 128 + 4: the exit status of a shell whose child SIGILL terminated


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process exited: by itself with a code, or terminated by a signal; both None where unknown."""

    code: int | None
    signal: str | None

    def __str__(self) -> str:
        if self.signal:
            return f"terminated by {self.signal}"
        return f"exit status {self.code}" if self.code is not None else "exited, cause unknown"

    @property
    def illegal_instruction(self) -> bool:
        """Whether the CPU refused an instruction: SIGILL, also where a shell in between made an exit code of it."""
        return self.signal == "SIGILL" or self.code == _ILLEGAL_INSTRUCTION_CODE


UNKNOWN_STATUS = ExitStatus(None, None)


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """The exit of one process. `pid` is 0 where its start is no longer in the log."""

    pid: int
    status: ExitStatus


def process_exits(supervisord_log: str, program: str) -> list[ProcessExit]:
    """Return the unexpected exits of `program`, oldest first."""
    found: list[ProcessExit] = []
    pid = 0
    for line in supervisord_log.splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        if match["spawned"] == program:
            pid = int(match["pid"])
        elif match["exited"] == program:
            found.append(ProcessExit(pid, ExitStatus(int(match["code"]) if match["code"] else None, match["signal"])))
            pid = 0
    return found


def read_supervisord_log(run: RunDir) -> str:
    """Return the newest part of supervisord's log, through one rotation; empty when there is none."""
    current = run.supervisord_log
    return read_tails((current.with_name(current.name + ".1"), current), _LOG_BYTES)


def read_tails(paths: Iterable[Path], max_bytes: int) -> str:
    """Return the last `max_bytes` of each file, joined; one that cannot be read adds nothing."""
    return "".join(_read_tail(path, max_bytes) for path in paths)


def _read_tail(path: Path, max_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
