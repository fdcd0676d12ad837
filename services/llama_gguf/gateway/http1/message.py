"""A request as the server hands it on, and header fields as they go over the wire. Plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

HeaderLines = str
"""Header fields as they go over the wire: whole lines, each with its line end (`header_lines` makes them)."""


_LINE_END = re.compile(r"[\r\n]+")


def header_lines(headers: Iterable[tuple[str, str]]) -> HeaderLines:
    """Return header fields as they go over the wire. A line end inside a value becomes a blank."""
    return "".join([f"{name}: {_LINE_END.sub(' ', value)}\r\n" for name, value in headers])


class RequestHead:
    """Method, target and headers. A client that repeats its head byte for byte gets the same object again.

    `memo` is the handler's: what it found out about this head the last time.
    """

    __slots__ = ("headers", "memo", "method", "path", "query")

    def __init__(self, method: str, target: str, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")  # as sent: not decoded, not normalised
        self.headers = headers
        self.memo: Any = None


class Request:
    """A parsed request. Header names are lower case; a repeated header's values are joined by commas."""

    __slots__ = ("body", "head", "peer")

    def __init__(self, head: RequestHead, *, body: bytes = b"", peer: str = "") -> None:
        self.head = head
        self.body = body
        self.peer = peer

    @property
    def method(self) -> str:
        """GET, POST and so on."""
        return self.head.method

    @property
    def path(self) -> str:
        """The target without its query, as sent."""
        return self.head.path

    @property
    def query(self) -> str:
        """What stands behind the question mark, as sent."""
        return self.head.query

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers."""
        return self.head.headers
