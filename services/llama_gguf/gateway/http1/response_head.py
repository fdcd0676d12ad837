"""Serializes response heads: the status line and the header fields."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from llama_gguf.gateway.http1.message import HeaderLines

SERVER: Final = "llama-gguf"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ResponseHeadWriter:
    """Serializes response heads. Caches the status line, Server and Date for the current second."""

    __slots__ = ("_prefixes", "_until")

    def __init__(self) -> None:
        self._prefixes: dict[int, str] = {}
        self._until = 0.0

    def fixed_length(self, status: int, lines: HeaderLines, length: int, *, close: bool) -> bytes:
        """Return the head of a response with a Content-Length (to HEAD, the length that GET would have)."""
        prefix = self._prefixes.get(status) if time.time() < self._until else None
        framing = "" if status in (204, 304) else f"Content-Length: {length}\r\n"
        end = "Connection: close\r\n\r\n" if close else "\r\n"
        return f"{prefix or self._prefix(status)}{lines}{framing}{end}".encode("latin-1", "replace")

    def stream(self, status: int, lines: HeaderLines, *, chunked: bool, close: bool) -> bytes:
        """Return the head of a response of unknown length: chunked, or delimited by the close of the connection."""
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
        end = "Connection: close\r\n\r\n" if close else "\r\n"
        return f"{self._prefix(status)}{lines}{framing}{end}".encode("latin-1", "replace")

    def _prefix(self, status: int) -> str:
        now = time.time()
        if now >= self._until:
            self._prefixes.clear()
            self._until = float(int(now) + 1)
        prefix = self._prefixes.get(status)
        if prefix is None:
            date = formatdate(now, usegmt=True)
            prefix = f"HTTP/1.1 {status} {_reason(status)}\r\nServer: {SERVER}\r\nDate: {date}\r\n"
            self._prefixes[status] = prefix
        return prefix


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
