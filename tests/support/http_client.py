"""A bare HTTP/1.1 client for tests: sends exactly the given bytes and parses responses strictly.

It raises on anything after an answer that does not belong to it, so a gateway that answers twice is found out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .gateway_box import KEY


@dataclass(frozen=True)
class Answer:
    """A response, its body without framing. `complete` is false where the connection closed before the end."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    complete: bool = True

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Return the error object, checked for its shape."""
        value = self.json()
        error: dict[str, Any] = value["error"]
        if value.get("type") == "error":
            assert isinstance(error["type"], str)
            assert isinstance(error["message"], str)
            return error
        assert set(error) == {"message", "type", "param", "code"}, error
        assert isinstance(error["code"], str)
        assert isinstance(error["message"], str)
        assert self.headers["content-type"].startswith("application/json")
        return error

    @property
    def events(self) -> list[str]:
        """Return the server-sent events, comments included, without their blank lines."""
        assert self.body.endswith(b"\n\n"), self.body[-100:]
        return self.body.decode().removesuffix("\n\n").split("\n\n")


def request_bytes(
    method: str,
    target: str,
    *,
    body: Any = None,
    key: str | None = KEY,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a request as bytes."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Host": "test", **({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
    if body is not None:
        lines = {"Content-Type": "application/json", "Content-Length": str(len(data)), **lines}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer:
    """Read one response. Raises EOFError when the connection closes before a status line."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise EOFError(error.partial) from None
    status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, status, _ = status_line.split(" ", 2)
    assert version in ("HTTP/1.1", "HTTP/1.0"), status_line
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    if head_only or status in ("204", "304"):
        return Answer(int(status), headers, b"")
    try:
        body = await _read_body(reader, headers)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        return Answer(int(status), headers, getattr(error, "partial", b""), complete=False)
    return Answer(int(status), headers, body)


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        assert "content-length" not in headers
        body = bytearray()
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line, 16)
            chunk = await reader.readexactly(size + 2)
            assert chunk.endswith(b"\r\n")
            if not size:
                return bytes(body)
            body += chunk[:-2]
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


async def exchange(port: int, *sent: bytes, pause: float = 0.0, answers: int = 1, eof: bool = False) -> list[Answer]:
    """Send bytes, piece by piece, on one connection and read the responses. Then checks that nothing follows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, piece in enumerate(sent):
            if number and pause:
                await asyncio.sleep(pause)
            writer.write(piece)
            await writer.drain()
        if eof:
            writer.write_eof()
        async with asyncio.timeout(20):
            found = [await read_answer(reader) for _ in range(answers)]
        if found[-1].headers.get("connection") == "close":
            assert await reader.read() == b""
        else:
            assert not reader._buffer  # type: ignore[attr-defined] # nothing may follow the last answer
        return found
    finally:
        writer.close()


async def ask(port: int, method: str, target: str, **options: Any) -> Answer:
    """Make one request on a new connection and read its response."""
    return (await exchange(port, request_bytes(method, target, **options)))[0]
