"""The chunked transfer coding, both ways: decoded by llhttp, and encoded."""

from __future__ import annotations

from typing import Final

import httptools

from llama_gguf.gateway.http1.header_rules import bad_request, too_large
from llama_gguf.gateway.http1.request_parser import ParserEvents

MAX_FRAMING_BYTES: Final = 65_536
# Not the client's own head: behind one that asks for an upgrade, as Java's HttpClient does, llhttp reads no body.
_HEAD: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"


class ChunkedBody:
    """Decodes a chunked body as it arrives."""

    def __init__(self, max_bytes: int) -> None:
        self._parsed = ParserEvents()
        self._parser = httptools.HttpRequestParser(self._parsed)
        self._max_bytes = max_bytes
        self._received = -len(_HEAD)
        self.feed(_HEAD)

    def feed(self, data: bytes) -> bool:
        """Decode the next bytes; return whether the body is complete. Raises GatewayError 400 or 413."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._parsed.complete:
                raise bad_request(f"The request body is not valid HTTP: {error}.") from None
            self._parsed.excess = True
        size = len(self._parsed.body)
        if size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._received += len(data)
        # One-byte chunks take six bytes each; the rest is extensions and trailers, which nothing here uses.
        if not self._parsed.complete and self._received > MAX_FRAMING_BYTES + 9 * size:
            raise bad_request("The chunk extensions or trailers are too long.")
        return self._parsed.complete

    @property
    def body(self) -> bytes:
        """The decoded body."""
        return bytes(self._parsed.body)

    @property
    def excess(self) -> bool:
        """Whether bytes followed the body. Their offset is not known, so the connection cannot be reused."""
        return self._parsed.excess


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
