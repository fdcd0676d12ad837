"""Real proxies: HTTP (forwarding and CONNECT) and SOCKS 5, with and without a password.

They resolve names by a table of their own, which a client that resolves them itself does not have.
"""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class ProxyServer:
    """Where it listens, what it knows, and what it was asked."""

    hosts: dict[str, int]  # "name:port" -> port on the loopback
    login: tuple[str, str] | None = None
    port: int = 0
    seen: list[str] = field(default_factory=list)  # as in "CONNECT models.test:443"
    heads: list[str] = field(default_factory=list)  # of the requests in clear text that an HTTP proxy can read
    refuses: int = 0  # an HTTP proxy answers this status

    def target(self, name: str) -> socket.socket | None:
        """Return a connection to `name`, "host:port", None if nobody has it."""
        port = self.hosts.get(name)
        return socket.create_connection(("127.0.0.1", port), 10) if port else None


class _Http(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        proxy = self.server.proxy
        method, target, _ = self.rfile.readline().decode().split()
        headers = [line for line in iter(self.rfile.readline, b"\r\n") if line]
        wanted = None
        if proxy.login:
            wanted = "basic " + base64.b64encode(":".join(proxy.login).encode()).decode()
        sent = next(
            (h.split(b":", 1)[1].strip() for h in headers if h.lower().startswith(b"proxy-authorization:")), b""
        )
        proxy.seen.append(f"{method} {target}")
        if proxy.refuses:
            return self._refuse(proxy.refuses)
        if wanted and sent.decode().lower() != wanted.lower():
            return self._refuse(407)
        parts = urlsplit(target)
        name = target if method == "CONNECT" else f"{parts.hostname}:{parts.port or 80}"
        upstream = proxy.target(name)
        if upstream is None:
            return self._refuse(502)
        with upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                kept = [h for h in headers if not h.lower().startswith((b"proxy-", b"connection:"))]
                head = f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode() + b"".join(kept) + b"\r\n"
                proxy.heads.append(head.decode())
                upstream.sendall(head)
            _pump(self.connection, upstream)
        return None

    def _refuse(self, status: int) -> None:
        self.wfile.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


class _Socks(socketserver.StreamRequestHandler):
    """SOCKS 5: RFC 1928, with the passwords of RFC 1929."""

    server: _Server

    def handle(self) -> None:
        proxy = self.server.proxy
        version, count = self.rfile.read(2)
        methods = self.rfile.read(count)
        assert version == 5
        method = 2 if proxy.login else 0
        if method not in methods:
            self.wfile.write(b"\x05\xff")
            return
        self.wfile.write(bytes([5, method]))
        if proxy.login:
            self.rfile.read(1)
            good = (self._text(), self._text()) == proxy.login
            self.wfile.write(bytes([1, 0 if good else 1]))
            if not good:
                return
        _, _, _, kind = self.rfile.read(4)
        host = self._text() if kind == 3 else socket.inet_ntoa(self.rfile.read(4))
        (port,) = struct.unpack("!H", self.rfile.read(2))
        proxy.seen.append(f"SOCKS {host}:{port}")
        upstream = proxy.target(f"{host}:{port}")
        self.wfile.write(bytes([5, 0 if upstream else 4, 0, 1]) + bytes(6))
        if upstream:
            with upstream:
                _pump(self.connection, upstream)

    def _text(self) -> str:
        return self.rfile.read(self.rfile.read(1)[0]).decode()


def _pump(left: socket.socket, right: socket.socket) -> None:
    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=copy, args=(right, left), daemon=True)
    back.start()
    copy(left, right)
    back.join(30)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    proxy: ProxyServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: clients of these tests disconnect early."""


@contextmanager
def _running(
    kind: type[socketserver.StreamRequestHandler], proxy: ProxyServer, tls: ssl.SSLContext | None
) -> Iterator[None]:
    server = _Server(("127.0.0.1", 0), kind)
    server.proxy = proxy
    proxy.port = server.server_address[1]
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def http_proxy(
    hosts: dict[str, int], login: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[ProxyServer]:
    """Run an HTTP proxy; with `tls`, clients connect to it by TLS."""
    proxy = ProxyServer(hosts, login)
    with _running(_Http, proxy, tls):
        yield proxy


@contextmanager
def socks_proxy(hosts: dict[str, int], login: tuple[str, str] | None = None) -> Iterator[ProxyServer]:
    """Run a SOCKS 5 proxy."""
    proxy = ProxyServer(hosts, login)
    with _running(_Socks, proxy, None):
        yield proxy


def names_of(port: int) -> dict[str, int]:
    """Return a table in which models.test and cdn.test are at `port` of the loopback."""
    return {f"{name}:{asked}": port for name in ("models.test", "cdn.test") for asked in (80, 443)}
