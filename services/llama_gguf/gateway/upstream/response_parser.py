"""What the engine says, as HTTP: its response heads and chunked bodies, parsed strictly. Touches no socket.

A head is parsed by llhttp; what it lets through and what must not reach a client (a second answer behind the first,
a body without a length) is refused here. Of its headers only those that describe the body pass on; its CORS, server and
connection headers stay behind.
"""

from __future__ import annotations

from typing import Literal

import httptools

from llama_gguf.gateway.http1.message import HeaderLines, header_lines

Headers = list[tuple[bytes, bytes]]
# What the engine may say about its body; everything else it sends is its own business.
PASSED_FROM_ENGINE = frozenset({b"content-type", b"content-encoding", b"content-language"})
FailureReason = Literal["connect", "closed", "protocol", "timeout", "stalled"]


class EngineFailure(Exception):  # noqa: N818 - a failure of the engine, translated to a GatewayError at the border
    """The engine did not answer as HTTP wants it, or in time, or (`stalled`) the client did not take the answer."""

    def __init__(self, reason: FailureReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class ResponseHead:
    """A parsed response head. `length` is None for a chunked body; `passed` are the headers that clients get."""

    __slots__ = ("keep_alive", "length", "media_type", "passed", "status")

    def __init__(self, status: int, headers: Headers, length: int | None, *, keep_alive: bool) -> None:
        self.status = status
        self.length = length
        self.keep_alive = keep_alive
        self.media_type = content_type(headers)
        self.passed = passed_from_engine(headers)


class ChunkFraming:
    """The parser's callbacks for one answer, and the parser, which holds the state of a chunked body."""

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
        self.keep_alive = self.parser.should_keep_alive()  # the parser knows it only now

    def on_message_complete(self) -> None:
        self.complete = True

    def feed(self, data: bytes) -> None:
        """Parse on. Raises EngineFailure."""
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise EngineFailure("protocol", str(error)) from None
        if self.begun > 1:  # a second answer to one request must never reach the client
            raise EngineFailure("protocol", "more than one answer")

    def take(self) -> bytes:
        """Return what came of the body, without its framing."""
        raise NotImplementedError("only a ChunkDecoder takes bodies apart")


class ChunkDecoder(ChunkFraming):
    """The same for a receiver that wants the body without its framing."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        super().__init__()

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def take(self) -> bytes:
        """Return what came of the body since the last time."""
        body = b"".join(self.parts)
        self.parts.clear()
        return body


def parse_response_head(data: bytes) -> ResponseHead:
    """Parse a response head that ends with its empty line. Raises EngineFailure."""
    parsed = ChunkFraming()
    parsed.feed(data)
    status = parsed.parser.get_status_code()
    if not 200 <= status <= 599:
        raise EngineFailure("protocol", f"status {status}")
    lengths = [value for name, value in parsed.headers if name == b"content-length"]
    if any(name == b"transfer-encoding" for name, _ in parsed.headers):
        length = None
    elif lengths:
        length = int(lengths[0])  # the parser has seen to it that it is one number
    elif status in (204, 304):
        length = 0
    else:
        raise EngineFailure("protocol", "response body without a length")
    return ResponseHead(status, parsed.headers, length, keep_alive=parsed.keep_alive)


def content_type(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the media type of an answer, without parameters, in lower case."""
    for name, value in headers:
        if name == b"content-type":
            return value.split(b";", 1)[0].strip().lower()
    return b""


def passed_from_engine(headers: list[tuple[bytes, bytes]]) -> HeaderLines:
    """Return the engine's headers that clients get."""
    return header_lines(
        (name.decode("latin-1").title(), value.decode("latin-1"))
        for name, value in headers
        if name in PASSED_FROM_ENGINE
    )
