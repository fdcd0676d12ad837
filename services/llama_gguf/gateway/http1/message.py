"""A request as the server passes it to the handler, and serialized header fields. Plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

HeaderLines = str
"""Serialized header fields: complete lines, each with its CRLF (`header_lines` creates them)."""


_LINE_END = re.compile(r"[\r\n]+")


def header_lines(headers: Iterable[tuple[str, str]]) -> HeaderLines:
    """Serialize header fields. A line break inside a value becomes a space."""
    return "".join([f"{name}: {_LINE_END.sub(' ', value)}\r\n" for name, value in headers])


class RequestHead:
    """Method, target and headers. The same object is reused if a connection's next head has exactly the same bytes.

    `memo` belongs to the handler: what it found out about this head the last time. `length` is that of the body, in
    bytes, None if it is chunked.
    """

    __slots__ = ("headers", "length", "memo", "method", "path", "query")

    def __init__(self, method: str, target: str, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")  # as sent: not decoded, not normalised
        self.headers = headers
        self.length: int | None = 0
        self.memo: Any = None


class Request:
    """A parsed request. Header names are in lower case; values of a repeated header are joined by commas."""

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
        """The request target without its query, as sent."""
        return self.head.path

    @property
    def query(self) -> str:
        """The query component, without the question mark, as sent."""
        return self.head.query

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers."""
        return self.head.headers
