"""A small real HTTP server for downloads, with knobs for everything that goes wrong with them.

Speaks ranges, If-Range, redirects, bearer tokens and as much of the Hugging Face hub as a download needs.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")


@dataclass
class Remote:
    """One file and how it is served."""

    body: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = None
    token: str | None = None
    ranges: bool = True
    length: bool = True
    content_type: str = "application/octet-stream"


@dataclass
class Fate:
    """A fault of one response."""

    status: int | None = None  # this, without a body
    retry_after: int | None = None
    cut_after: int | None = None  # break off after that many bytes of the body
    stall: bool = False  # say nothing more after that many bytes, until the server ends
    bytes_per_second: float | None = None


@dataclass
class Answer:
    """A whole response instead of the file's."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class FileServer:
    """What the server has, its faults, and the requests it got."""

    address: str = ""
    port: int = 0
    files: dict[str, Remote] = field(default_factory=dict)  # by path
    hub: dict[str, dict[str, Remote]] = field(default_factory=dict)  # repository -> file -> content
    hub_token: str | None = None
    cut_after: list[int] = field(default_factory=list)  # the next answers break off after that many bytes
    statuses: list[int] = field(default_factory=list)  # the next answers have these instead
    answer: Callable[[str, str], Answer | None] | None = None  # to each request, by method and path
    redirects: dict[str, str] = field(default_factory=dict)
    commit: str = COMMIT
    wrong_range: bool = False
    heeds_if_range: bool = True
    connections: int = 0  # so far
    signature: str = "secret"  # what the hub signs addresses with; older ones are refused
    fate: Callable[[str, dict[str, str]], Fate | None] | None = None  # of each GET, by target and headers
    bytes_per_second: float | None = None  # of each connection
    ended: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event | None = None  # answers wait in the middle of the body until it is set
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str) -> str:
        """Return the URL of `path`."""
        return self.address + path

    def asked(self, method: str, path: str) -> list[dict[str, str]]:
        """Return the headers (names in lower case) of every request of that kind."""
        return [headers for was, where, headers in self.requests if (was, where) == (method, path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: FileServer

    def setup(self) -> None:
        super().setup()
        self.site.connections += 1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.site.requests.append((self.command, path, headers))
        if answer := self.site.answer(self.command, path) if self.site.answer else None:
            self._send(answer.status, answer.body if with_body else b"", answer.headers, length=len(answer.body))
        elif self.site.statuses:
            self._empty(self.site.statuses.pop(0))
        elif path in self.site.redirects:
            self._empty(302, Location=self.site.redirects[path])
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(match, headers)
        elif match := _TREE.fullmatch(path):
            files = self.site.hub.get(match["repo"], {})
            listing = [
                {"type": "file", "path": name, "size": len(f.body), "oid": "0" * 40} for name, f in files.items()
            ]
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})
        elif remote := self.site.files.get(path):
            if path.startswith("/cdn/") and urlsplit(self.path).query != f"signature={self.site.signature}":
                self._empty(403)
                return
            fate = self.site.fate(self.path, headers) if self.site.fate and with_body else None
            if fate and fate.status:
                self._empty(fate.status, **({"Retry-After": str(fate.retry_after)} if fate.retry_after else {}))
                return
            self._file(remote, headers, fate or Fate(), with_body=with_body)
        else:
            self._empty(404)

    def _resolve(self, match: re.Match[str], headers: dict[str, str]) -> None:
        """Do as the hub does: send the file's metadata, and redirect the client to the bytes."""
        repository, name = self.site.hub.get(match["repo"]), match["file"]
        if self.site.hub_token and headers.get("authorization") != f"Bearer {self.site.hub_token}":
            self._empty(401, **{"X-Error-Code": "GatedRepo"} if repository else {"X-Error-Code": "RepoNotFound"})
        elif repository is None:
            self._empty(404, **{"X-Error-Code": "RepoNotFound"})
        elif match["revision"] not in ("main", self.site.commit):
            self._empty(404, **{"X-Error-Code": "RevisionNotFound"})
        elif name not in repository:
            self._empty(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.site.commit})
        else:
            remote = repository[name]
            where = f"/cdn/{match['repo']}/{name}"
            self.site.files[where] = remote
            digest = hashlib.sha256(remote.body).hexdigest()
            self._empty(
                302,
                Location=self.site.url(where).replace("127.0.0.1", "localhost")
                + f"?signature={self.site.signature}",  # another host
                **{
                    "X-Repo-Commit": self.site.commit,
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(remote.body)),
                },
            )

    def _file(self, remote: Remote, headers: dict[str, str], fate: Fate, *, with_body: bool) -> None:
        if remote.token and headers.get("authorization") != f"Bearer {remote.token}":
            self._empty(401)
            return
        size, start, status = len(remote.body), 0, 200
        end = size
        validator = remote.etag or remote.last_modified
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if (
            wanted
            and remote.ranges
            and (headers.get("if-range", validator) == validator or not self.site.heeds_if_range)
        ):
            start, status = int(wanted[1]), 206
            if start >= size:
                self._empty(416, **{"Content-Range": f"bytes */{size}"})
                return
            end = min(int(wanted[2]) + 1, size) if wanted[2] else size
        answer = {"Content-Type": remote.content_type}
        if remote.etag:
            answer["ETag"] = remote.etag
        if remote.last_modified:
            answer["Last-Modified"] = remote.last_modified
        if status == 206:
            claimed = start + 1 if self.site.wrong_range else start
            answer["Content-Range"] = f"bytes {claimed}-{end - 1}/{size}"
        length = end - start if remote.length else None
        self._send(status, memoryview(remote.body)[start:end] if with_body else b"", answer, fate, length=length)

    def _empty(self, status: int, **headers: str) -> None:
        self._send(status, b"", headers, length=0)

    def _send(
        self,
        status: int,
        body: bytes | memoryview,
        headers: dict[str, str],
        fate: Fate | None = None,
        *,
        length: int | None = -1,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        else:
            self.close_connection = True
        self.end_headers()
        if body and self.site.hold:
            self.wfile.write(body[: len(body) // 2])
            self.site.hold.wait(30)
            body = body[len(body) // 2 :]
        fate = fate or Fate()
        if body and self.site.cut_after:
            fate = Fate(cut_after=self.site.cut_after.pop(0))
        self._trickle(body[: fate.cut_after], fate.bytes_per_second or self.site.bytes_per_second)
        if fate.stall:
            self.site.ended.wait(60)
        if fate.cut_after is not None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _trickle(self, body: bytes | memoryview, bytes_per_second: float | None) -> None:
        if bytes_per_second is None:
            self.wfile.write(body)
            return
        began_at, step = time.monotonic(), max(1, int(bytes_per_second / 50))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            ahead = began_at + (start + step) / bytes_per_second - time.monotonic()
            if ahead > 0 and self.site.ended.wait(ahead):
                return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # else the kernel drops some of many connections that come at once

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: clients of these tests disconnect early."""


@contextmanager
def file_server(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """Run a server on a free port of the loopback; with `tls`, which has its certificate, for https."""
    site = FileServer()
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    site.port = int(server.server_address[1])
    site.address = f"http{'s' if tls else ''}://127.0.0.1:{site.port}"
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.ended.set()
        if site.hold:
            site.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
