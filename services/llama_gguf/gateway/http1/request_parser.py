"""Request heads, parsed by llhttp.

Nothing here touches a socket. What llhttp refuses (Content-Length with Transfer-Encoding, repeated or odd lengths,
folded lines, blanks before a colon, bare line feeds, control characters, odd chunk sizes) is a 400; the limits and
what llhttp leaves to the application are checked here.
"""

from __future__ import annotations

from typing import Final

import httptools

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.header_rules import HttpLimits, bad_request, check_framing, join_headers
from llama_gguf.gateway.http1.message import RequestHead

MAX_TOLD_BYTES: Final = 512


class Head(RequestHead):
    """A parsed request head, and how its body is framed. `length` is None for a chunked body."""

    __slots__ = ("expects_continue", "keep_alive", "length", "takes_chunks")

    def __init__(self, method: str, target: str, headers: dict[bytes, bytes], length: int | None) -> None:
        super().__init__(method, target, headers)
        self.length = length
        self.keep_alive = True
        self.takes_chunks = True
        self.expects_continue = False


class ParserEvents:
    """llhttp's callbacks for one request."""

    __slots__ = ("body", "complete", "excess", "headers", "headers_done", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.headers_done = False
        self.body = bytearray()
        self.complete = False
        self.excess = False  # bytes of another request came behind this one

    def on_message_begin(self) -> None:
        self.excess = self.complete

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.headers_done:  # trailers are read and dropped
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.headers_done = True

    def on_body(self, part: bytes) -> None:
        if not self.excess:
            self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


def parse_head(data: bytes, limits: HttpLimits, extra_once: bytes | None = None) -> Head:
    """Parse a request head that ends with its empty line. Raises GatewayError 400, 413, 414, 415, 417, 431 or 505."""
    if data.find(b"\r\n") > limits.max_request_line_bytes:
        raise uri_too_long()
    parsed = ParserEvents()
    parser = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # nothing is spoken here that one could upgrade to: the request is answered as it is
    except httptools.HttpParserError as error:
        raise bad_request(f"The request is not valid HTTP: {error}.") from None
    if not parsed.headers_done:
        raise bad_request("The request is not valid HTTP.")
    check_header_sizes(parsed.headers, limits)
    headers = join_headers(parsed.headers, extra_once)
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise GatewayError("http_version_not_supported", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    head = Head(
        parser.get_method().decode("ascii"),
        _origin_form(parsed.url.decode("latin-1")),
        headers,
        check_framing(headers, limits.max_body_bytes),
    )
    head.keep_alive = b"close" not in headers.get(b"connection", b"").lower()
    if version == "1.1":
        if b"host" not in headers:
            raise bad_request("The header Host is missing.")
        head.expects_continue = _expects_continue(headers)
    else:
        if head.length is None:
            raise bad_request("HTTP/1.0 knows no chunked bodies.")
        head.keep_alive = head.takes_chunks = False
    return head


def method_and_target(head: bytes) -> tuple[str, str]:
    """Return method and target of a head that cannot be used, as far as they can be told: for the log and the answer.

    Of a head cut off in its first line the last word may be cut as well.
    """
    words = head[:MAX_TOLD_BYTES].partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) < 2 or not words[0].isalpha():
        return "", ""
    return words[0], _origin_form(words[1])


def _origin_form(target: str) -> str:
    """Return the path and query of a target; proxies may send it with scheme and host."""
    scheme, found, rest = target.partition("://")
    if found and scheme.lower() in ("http", "https"):
        slash = rest.find("/")
        return rest[slash:] if slash >= 0 else "/"
    return target


def _expects_continue(headers: dict[bytes, bytes]) -> bool:
    expect = headers.get(b"expect")
    if expect is None:
        return False
    if expect.strip().lower() != b"100-continue":
        raise GatewayError("expectation_failed", "The only expectation met here is 100-continue.")
    return True


def check_header_sizes(headers: list[tuple[bytes, bytes]], limits: HttpLimits) -> None:
    """Check number and length of header lines. Raises GatewayError 431."""
    if len(headers) > limits.max_headers:
        raise headers_too_large(f"more than {limits.max_headers} header lines")
    longest = limits.max_header_line_bytes
    for name, value in headers:
        if len(name) + len(value) + 2 > longest:
            raise headers_too_large(f"a header line longer than {longest} bytes")


def check_unfinished(data: bytes, limits: HttpLimits) -> None:
    """Check the beginning of a head whose end has not come yet. Raises GatewayError 400, 414 or 431."""
    line_end = data.find(b"\r\n")
    if line_end < 0:
        if len(data) > limits.max_request_line_bytes:
            raise uri_too_long()
        if b"\n" in data:
            raise bad_request("The request is not valid HTTP: lines end with CR and LF.")
        return
    if line_end > limits.max_request_line_bytes:
        raise uri_too_long()
    if len(data) - line_end > max_head_bytes(limits):
        raise headers_too_large("too many bytes of headers")
    if b"\n\n" in data:
        raise bad_request("The request is not valid HTTP: lines end with CR and LF.")


def max_head_bytes(limits: HttpLimits) -> int:
    """Return how many bytes of header lines are taken in all: far more than any client sends, far less than hurts."""
    return max(65_536, 2 * limits.max_header_line_bytes)


def uri_too_long() -> GatewayError:
    """Return the error for a request line beyond the limit."""
    return GatewayError("uri_too_long", "The request line is too long.")


def headers_too_large(what: str) -> GatewayError:
    """Return the error for headers beyond a limit."""
    return GatewayError("header_fields_too_large", f"The request has {what}.")
