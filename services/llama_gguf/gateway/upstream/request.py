"""Serializes requests to llama-server.

None of the client's headers is passed on: all are created here (some of llama-server's headers keep a stream alive
after its client has disconnected, and multipart bodies can hide fields from checks).
"""

from __future__ import annotations


def engine_head(method: str, target: str, key: str) -> bytes:
    """Return the constant part of a request's head; `engine_request` completes it."""
    return f"{method} {target} HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {key}\r\n".encode("latin-1")


def engine_request(head: bytes, body: bytes, media_type: bytes) -> bytes:
    """Return the bytes of a complete request to the engine."""
    if not body:
        return head + b"\r\n"
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, media_type, len(body), body)


def usage_head(head: bytes, prefix: str, scope: str) -> bytes:
    """Return a request's head up to the number at the end of its usage id, by which the engine stores its usage.

    `scope`: prompts of another one share nothing in the engine's cache; "" for none.
    """
    if scope:
        head += f"X-Cache-Scope: {scope}\r\n".encode("ascii")
    return head + f"X-Usage-Id: {prefix}".encode("ascii")
