"""XML-RPC over a unix socket, one short connection per call."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any


class CallError(Exception):
    """There was no response, or it was a fault."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._timeout = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401 - as the base has it
        connection = _Connection(self._path, self._timeout)
        self._connection = host, connection  # the attribute of the base class that it closes
        return connection


def call(path: Path, method: str, arguments: tuple[object, ...], timeout_seconds: float) -> Any:  # noqa: ANN401 - the result of any method
    """Call a method, such as `supervisor.getState`, and return its result. Raises CallError."""
    proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(path, timeout_seconds))
    try:
        with proxy:
            return getattr(proxy, method)(*arguments)
    except xmlrpc.client.Fault as error:
        raise CallError(f"supervisord rejected {method}: {error.faultString}") from error
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise CallError(f"supervisord does not respond on {path}: {error}") from error
