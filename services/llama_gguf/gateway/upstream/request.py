"""Requests to llama-server, as bytes.

None of the client's headers goes along: the head is made here, whole (llama-server has headers that keep a stream
alive after its client has gone, and multipart bodies that hide fields from checks).
"""

from __future__ import annotations


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
