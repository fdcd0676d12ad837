"""Which headers cross the gateway, and in which form.

To the engine goes none of the client's headers: its head is made here, whole (llama-server has headers that keep a
stream alive after its client has gone, and multipart bodies that hide fields from checks). From the engine come only
those that describe the body; its CORS, server and connection headers stay behind.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

from .exchange import HeaderLines

_LINE_END = re.compile(r"[\r\n]+")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

# What the engine may say about its body; everything else it sends is its own business.
PASSED_FROM_ENGINE = frozenset({b"content-type", b"content-encoding", b"content-language"})


def request_id(sent: bytes | None) -> str:
    """Return the client's request id if it is a sane one, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return uuid.uuid4().hex


def content_type(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the media type of an answer, without parameters, in lower case."""
    for name, value in headers:
        if name == b"content-type":
            return value.split(b";", 1)[0].strip().lower()
    return b""


def lines(headers: Iterable[tuple[str, str]]) -> HeaderLines:
    """Return header fields as they go over the wire. A line end inside a value becomes a blank."""
    return "".join([f"{name}: {_LINE_END.sub(' ', value)}\r\n" for name, value in headers])


def passed_from_engine(headers: list[tuple[bytes, bytes]]) -> HeaderLines:
    """Return the engine's headers that clients get."""
    return lines(
        (name.decode("latin-1").title(), value.decode("latin-1"))
        for name, value in headers
        if name in PASSED_FROM_ENGINE
    )


def engine_head(method: str, target: str, key: str) -> bytes:
    """Return the constant part of a request head to the engine; `engine_request` completes it."""
    return f"{method} {target} HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {key}\r\n".encode("latin-1")


def engine_request(head: bytes, body: bytes, media_type: bytes) -> bytes:
    """Return the bytes of a whole request to the engine."""
    if not body:
        return head + b"\r\n"
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, media_type, len(body), body)


def usage_head(head: bytes, prefix: str) -> bytes:
    """Return a request head up to the number that ends the id under which the engine keeps what a request uses."""
    return head + f"X-Usage-Id: {prefix}".encode("ascii")
