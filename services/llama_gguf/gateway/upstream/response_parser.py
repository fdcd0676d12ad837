"""Parses the engine's response heads and chunked bodies, strictly. Touches no socket.

llhttp parses; what it accepts but must not reach a client (a second response after the first, a body without a length)
is rejected here. Only the headers that describe the body are passed on; the engine's CORS, Server and Connection
headers are dropped.
"""

from __future__ import annotations

from typing import Literal

import httptools

from llama_gguf.gateway.http1.message import HeaderLines, header_lines

Headers = list[tuple[bytes, bytes]]
# Headers that describe the body; all others are dropped.
PASSED_FROM_ENGINE = frozenset({b"content-type", b"content-encoding", b"content-language"})
FailureReason = Literal["connect", "closed", "protocol", "timeout", "stalled"]


class EngineFailure(Exception):  # noqa: N818 - a failure of the engine, translated to a GatewayError at the border
    """The engine's response was invalid, incomplete or late, or (`stalled`) the client stopped reading it."""

    def __init__(self, reason: FailureReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def timeout_detail(setting: str, seconds: float) -> str:
    """Return how an error names the limit of `gateway.timeouts` that was exceeded."""
    return f"gateway.timeouts.{setting} ({seconds:g} s)"


class ResponseHead:
    """A parsed response head. `length` is None for a chunked body; `passed` are the headers passed on to clients."""

    __slots__ = ("keep_alive", "length", "media_type", "passed", "status")

    def __init__(self, status: int, headers: Headers, length: int | None, *, keep_alive: bool) -> None:
        self.status = status
        self.length = length
        self.keep_alive = keep_alive
        self.media_type = content_type(headers)
        self.passed = passed_from_engine(headers)


class ChunkFraming:
    """The parser of one response and its callbacks; it keeps the state of a chunked body."""

    __slots__ = ("begun", "complete", "headers", "keep_alive", "parser")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.begun = 0
        self.complete = False
        self.keep_alive = True
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()  # known only after the headers

    def on_message_complete(self) -> None:
        self.complete = True

    def feed(self, data: bytes) -> None:
        """Parse the next bytes. Raises EngineFailure."""
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise EngineFailure("protocol", str(error)) from None
        if self.begun > 1:  # a second response to one request must never reach the client
            raise EngineFailure("protocol", "more than one response")

    def take(self) -> bytes:
        """Return the decoded part of the body."""
        raise NotImplementedError("only a ChunkDecoder decodes bodies")


class ChunkDecoder(ChunkFraming):
    """The same for a receiver that needs the decoded body."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        super().__init__()

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def take(self) -> bytes:
        """Return the part of the body that was decoded since the last call."""
        body = b"".join(self.parts)
        self.parts.clear()
        return body


def parse_response_head(data: bytes) -> ResponseHead:
    """Parse a complete response head. Raises EngineFailure."""
    parsed = ChunkFraming()
    parsed.feed(data)
    status = parsed.parser.get_status_code()
    if not 200 <= status <= 599:
        raise EngineFailure("protocol", f"status {status}")
    lengths = [value for name, value in parsed.headers if name == b"content-length"]
    codings = [value.strip().lower() for name, value in parsed.headers if name == b"transfer-encoding"]
    if status in (204, 304):
        length = 0
    elif codings:
        if codings != [b"chunked"]:  # then llhttp reads up to the end of the connection
            raise EngineFailure("protocol", "unknown transfer coding")
        length = None
    elif lengths:
        length = int(lengths[0])  # llhttp has checked that it is a single number
    else:
        raise EngineFailure("protocol", "response body without a length")
    return ResponseHead(status, parsed.headers, length, keep_alive=parsed.keep_alive)


def check_interim_head(data: bytes) -> None:
    """Check the complete head of an interim response (1xx), after which the response follows. Raises EngineFailure."""
    status = data[9:12]
    if not status.isdigit() or status == b"101" or data[12:13] not in (b" ", b"\r"):
        raise EngineFailure("protocol", f"status {status.decode('latin-1')}")


def content_type(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the media type of a response, without parameters, in lower case."""
    for name, value in headers:
        if name == b"content-type":
            return value.split(b";", 1)[0].strip().lower()
    return b""


def passed_from_engine(headers: list[tuple[bytes, bytes]]) -> HeaderLines:
    """Return the engine's headers that are passed on to clients."""
    return header_lines(
        (name.decode("latin-1").title(), value.decode("latin-1"))
        for name, value in headers
        if name in PASSED_FROM_ENGINE
    )
