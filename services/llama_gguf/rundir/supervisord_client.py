"""A client of supervisord's XML-RPC interface: the calls in use, typed."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNNING_STATES = frozenset({"RUNNING", "STARTING", "BACKOFF"})
STOPPED_STATES = frozenset({"STOPPED", "EXITED", "FATAL"})


class SupervisordError(Exception):
    """supervisord did not respond, or returned a fault."""


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """The state of one program, as supervisord reports it."""

    name: str
    state: str  # STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL UNKNOWN
    pid: int  # 0 when it is not running
    uptime_seconds: int
    problem: str  # supervisord's message, "" where there is none


class Supervisord:
    """A client of supervisord; one short connection per call. Every call may raise SupervisordError."""

    def __init__(self, path: Path, *, timeout_seconds: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout_seconds

    def programs(self) -> list[ProgramInfo]:
        """Return the state of every program, in supervisord's order."""
        return [_info(item) for item in self._call("getAllProcessInfo")]

    def shutdown(self) -> None:
        """Start the shutdown of all programs and then supervisord itself, without waiting for it."""
        self._call("shutdown")

    def state_of(self, name: str) -> str:
        """Return the state of one program, such as RUNNING."""
        return str(self._call("getProcessInfo", name)["statename"])

    def stop_program(self, name: str) -> None:
        """Stop one program, without waiting for its exit; supervisord does not restart it."""
        if self.state_of(name) in RUNNING_STATES:
            self._call("stopProcess", name, False)

    def start_program(self, name: str) -> None:
        """Start a program that has stopped or is FATAL, without waiting for it; otherwise do nothing."""
        if self.state_of(name) in STOPPED_STATES:
            self._call("startProcess", name, False)

    def signal_program(self, name: str, signal: str) -> None:
        """Send a signal, such as `HUP`, to one program."""
        self._call("signalProcess", name, signal)

    def state(self) -> str:
        """Return the state of supervisord itself, such as RUNNING."""
        return str(self._call("getState")["statename"])

    def wake(self) -> None:
        """Make supervisord's loop run now, by an empty connection; otherwise it runs once a second."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0.1)
            connection.connect(str(self._path))

    def _call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - the result of any method
        from llama_gguf.rundir import unix_xmlrpc  # noqa: PLC0415 - costs 50 ms, which `up` spends while supervisord starts

        try:
            return unix_xmlrpc.call(self._path, f"supervisor.{method}", arguments, self._timeout)
        except unix_xmlrpc.CallError as error:
            raise SupervisordError(str(error)) from error


def _info(item: dict[str, Any]) -> ProgramInfo:
    running = item["statename"] in {"RUNNING", "STARTING", "STOPPING"}
    return ProgramInfo(
        name=item["name"],
        state=item["statename"],
        pid=item["pid"],
        uptime_seconds=max(0, item["now"] - item["start"]) if running else 0,
        problem=item["spawnerr"],
    )
