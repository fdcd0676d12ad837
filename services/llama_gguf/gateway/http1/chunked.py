"""Chunked bodies, both ways: taken apart by llhttp, and framed."""

from __future__ import annotations

from typing import Final

import httptools

from llama_gguf.gateway.http1.header_rules import bad_request, too_large
from llama_gguf.gateway.http1.request_parser import ParserEvents

MAX_FRAMING_BYTES: Final = 65_536
LAST_CHUNK: Final = b"0\r\n\r\n"


class ChunkedBody:
    """Takes a chunked body apart, in whatever pieces it comes."""

    def __init__(self, head: bytes, max_bytes: int) -> None:
        self._parsed = ParserEvents()
        self._parser = httptools.HttpRequestParser(self._parsed)
        self._max_bytes = max_bytes
        self._taken = -len(head)
        self.feed(head)

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; return whether the body is complete. Raises GatewayError 400 or 413."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise bad_request("A request to upgrade cannot have a chunked body here.") from None
        except httptools.HttpParserError as error:
            if not self._parsed.complete:
                raise bad_request(f"The request body is not valid HTTP: {error}.") from None
            self._parsed.excess = True
        size = len(self._parsed.body)
        if size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._taken += len(data)
        # One-byte chunks take six bytes each; the rest is extensions and trailers, which nobody needs.
        if not self._parsed.complete and self._taken > MAX_FRAMING_BYTES + 9 * size:
            raise bad_request("The chunked body has too much in its framing.")
        return self._parsed.complete

    @property
    def body(self) -> bytes:
        """The body without its framing."""
        return bytes(self._parsed.body)

    @property
    def excess(self) -> bool:
        """Whether more came behind the body. Where it begins is not known, so the connection cannot go on."""
        return self._parsed.excess


def chunk(data: bytes) -> bytes:
    """Return `data` in the framing of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
