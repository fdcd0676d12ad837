"""The RPC client against a small real server; the launch tests use it against supervisord itself."""

from __future__ import annotations

import shutil
import socketserver
import tempfile
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest

from llama_gguf.rundir.supervisord_client import ProgramInfo, Supervisord, SupervisordError

STATES = {"a": "RUNNING", "b": "FATAL", "c": "STOPPED", "d": "STOPPING"}


class Handler(SimpleXMLRPCRequestHandler):
    disable_nagle_algorithm = False  # not a TCP socket

    def address_string(self) -> str:
        return "unix"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


class Server(socketserver.ThreadingUnixStreamServer, SimpleXMLRPCDispatcher):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True)
        socketserver.ThreadingUnixStreamServer.__init__(self, str(path), Handler)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def _dispatch(self, method: str, params: Any) -> Any:
        self.calls.append((method, tuple(params)))
        if method == "supervisor.getState":
            return {"statecode": 1, "statename": "RUNNING"}
        if method == "supervisor.getAllProcessInfo":
            base = {"start": 100, "now": 130, "pid": 7, "spawnerr": ""}
            return [
                {**base, "name": "a", "statename": "RUNNING"},
                {**base, "name": "b", "statename": "FATAL", "pid": 0, "spawnerr": "no"},
            ]
        if method == "supervisor.getProcessInfo":
            if params[0] not in STATES:
                raise xmlrpc.client.Fault(10, "BAD_NAME")
            return {"statename": STATES[params[0]]}
        return True


@pytest.fixture
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="lg"))
    server = Server(folder / "s.sock")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    shutil.rmtree(folder)


def client(server: Server) -> Supervisord:
    return Supervisord(Path(str(server.server_address)), timeout_seconds=2)


def test_only_what_does_not_run_is_started_and_only_what_runs_is_stopped(server: Server) -> None:
    for name in STATES:
        client(server).start_program(name)
        client(server).stop_program(name)
    changes = [call for call in server.calls if call[0] != "supervisor.getProcessInfo"]
    assert changes == [
        ("supervisor.stopProcess", ("a", False)),
        ("supervisor.startProcess", ("b", False)),
        ("supervisor.startProcess", ("c", False)),
    ]
    with pytest.raises(SupervisordError, match="BAD_NAME"):
        client(server).start_program("none")


def test_calls(server: Server) -> None:
    assert client(server).state() == "RUNNING"
    assert client(server).programs() == [
        ProgramInfo("a", "RUNNING", 7, 30, ""),
        ProgramInfo("b", "FATAL", 0, 0, "no"),
    ]
    client(server).shutdown()
    client(server).signal_program("gateway", "HUP")
    assert server.calls[-2:] == [("supervisor.shutdown", ()), ("supervisor.signalProcess", ("gateway", "HUP"))]


def test_a_refusal_is_told(server: Server) -> None:
    with pytest.raises(SupervisordError, match=r"rejected supervisor\.getProcessInfo: BAD_NAME"):
        client(server).stop_program("x")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SupervisordError, match="does not respond"):
        Supervisord(tmp_path / "absent.sock").state()
