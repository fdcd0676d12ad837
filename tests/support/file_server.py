"""A small real HTTP server for downloads, with knobs for everything that goes wrong with them.

Speaks ranges, If-Range, redirects, bearer tokens and as much of the Hugging Face hub as a download needs.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
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
class FileServer:
    """What the server has, how it misbehaves, and what it was asked."""

    address: str = ""
    files: dict[str, Remote] = field(default_factory=dict)  # by path
    hub: dict[str, dict[str, Remote]] = field(default_factory=dict)  # repository -> file -> content
    hub_token: str | None = None
    cut_after: list[int] = field(default_factory=list)  # the next answers break off after that many bytes
    statuses: list[int] = field(default_factory=list)  # the next answers have these instead
    redirects: dict[str, str] = field(default_factory=dict)
    commit: str = COMMIT
    wrong_range: bool = False
    hold: threading.Event | None = None  # answers wait in the middle of the body until it is set
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str) -> str:
        """Return the address of `path`."""
        return self.address + path

    def asked(self, method: str, path: str) -> list[dict[str, str]]:
        """Return the headers (names in lower case) of every request of that kind."""
        return [headers for was, where, headers in self.requests if (was, where) == (method, path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: FileServer

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
        if self.site.statuses:
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
            self._file(remote, headers, with_body=with_body)
        else:
            self._empty(404)

    def _resolve(self, match: re.Match[str], headers: dict[str, str]) -> None:
        """Do as the hub does: say what the file is, and send the client to where the bytes are."""
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
                Location=self.site.url(where).replace("127.0.0.1", "localhost") + "?signature=secret",  # another host
                **{
                    "X-Repo-Commit": self.site.commit,
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(remote.body)),
                },
            )

    def _file(self, remote: Remote, headers: dict[str, str], *, with_body: bool) -> None:
        if remote.token and headers.get("authorization") != f"Bearer {remote.token}":
            self._empty(401)
            return
        size, start, status = len(remote.body), 0, 200
        validator = remote.etag or remote.last_modified
        wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if wanted and remote.ranges and headers.get("if-range", validator) == validator:
            start, status = int(wanted[1]), 206
            if start >= size:
                self._empty(416, **{"Content-Range": f"bytes */{size}"})
                return
        answer = {"Content-Type": remote.content_type, "Connection": "close"}
        if remote.etag:
            answer["ETag"] = remote.etag
        if remote.last_modified:
            answer["Last-Modified"] = remote.last_modified
        if status == 206:
            claimed = start + 1 if self.site.wrong_range else start
            answer["Content-Range"] = f"bytes {claimed}-{size - 1}/{size}"
        body = remote.body[start:]
        self._send(status, body if with_body else b"", answer, length=len(body) if remote.length else None)

    def _empty(self, status: int, **headers: str) -> None:
        self._send(status, b"", headers, length=0)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = -1) -> None:
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
        if body and self.site.cut_after:
            self.wfile.write(body[: self.site.cut_after.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients of these tests do leave early."""


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Run a server on a free port of the loopback."""
    site = FileServer()
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        if site.hold:
            site.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
