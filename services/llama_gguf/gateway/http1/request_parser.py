"""Parses request heads with llhttp. A head is the request line and the header fields, up to the empty line.

Nothing here touches a socket. What llhttp rejects (Content-Length with Transfer-Encoding, repeated or invalid lengths,
folded lines, whitespace before a colon, bare line feeds, control characters, invalid chunk sizes) is a 400; the limits
and what llhttp leaves to the application are checked here.
"""

from __future__ import annotations

from typing import Final

import httptools

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.header_rules import HttpLimits, bad_request, check_framing, join_headers
from llama_gguf.gateway.http1.message import RequestHead

MAX_REPORTED_BYTES: Final = 512
TLS_HANDSHAKE: Final = b"\x16"
"""The first byte of a TLS client."""


class Head(RequestHead):
    """A parsed request head, with the framing of its body. `length` is None for a chunked body."""

    __slots__ = ("accepts_chunked", "expects_continue", "keep_alive")

    def __init__(self, method: str, target: str, headers: dict[bytes, bytes], length: int | None) -> None:
        super().__init__(method, target, headers)
        self.length = length
        self.keep_alive = True
        self.accepts_chunked = True
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
        self.excess = False  # bytes of another request followed this one

    def on_message_begin(self) -> None:
        self.excess = self.complete

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.headers_done:  # trailers are discarded
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.headers_done = True

    def on_body(self, part: bytes) -> None:
        if not self.excess:
            self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


def parse_head(data: bytes, limits: HttpLimits, extra_singleton: bytes | None = None) -> Head:
    """Parse a complete request head. Raises GatewayError 400, 413, 414, 415, 417, 431 or 505."""
    line_end = data.find(b"\r\n")
    if line_end > limits.max_request_line_bytes:
        raise uri_too_long()
    check_protocol(data[:line_end])
    parsed = ParserEvents()
    parser = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # no protocol to upgrade to is supported: Upgrade is ignored, as RFC 9110 allows
    except httptools.HttpParserError as error:
        raise bad_request(f"The request is not valid HTTP: {error}.") from None
    if not parsed.headers_done:
        raise bad_request("The request is not valid HTTP.")
    check_header_sizes(parsed.headers, limits)
    headers = join_headers(parsed.headers, extra_singleton)
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise GatewayError("http_version_not_supported", "Unsupported HTTP version; use HTTP/1.1 or HTTP/1.0.")
    head = Head(
        parser.get_method().decode("ascii"),
        _origin_form(parsed.url.decode("latin-1")),
        headers,
        check_framing(headers, limits.max_body_bytes),
    )
    head.keep_alive = b"close" not in headers.get(b"connection", b"").lower()
    if version == "1.1":
        if b"host" not in headers:
            raise bad_request("The Host header is missing.")
        head.expects_continue = _expects_continue(headers)
    else:
        if head.length is None:
            raise bad_request("Chunked bodies require HTTP/1.1.")
        head.keep_alive = head.accepts_chunked = False
    return head


def method_and_target(head: bytes) -> tuple[str, str]:
    """Return method and target of an invalid head, as far as they are readable, for the log and the response.

    If the head was truncated in the request line, the target might be truncated as well.
    """
    words = head[:MAX_REPORTED_BYTES].partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) < 2 or not words[0].isalpha():
        return "", ""
    return words[0], _origin_form(words[1])


def _origin_form(target: str) -> str:
    """Return a request target in origin-form (path and query); clients may send the absolute-form."""
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
        raise GatewayError("expectation_failed", "Unsupported Expect header; only 100-continue is supported.")
    return True


def check_header_sizes(headers: list[tuple[bytes, bytes]], limits: HttpLimits) -> None:
    """Check the number and the length of header lines. Raises GatewayError 431."""
    if len(headers) > limits.max_headers:
        raise headers_too_large(f"more than {limits.max_headers} header lines")
    max_bytes = limits.max_header_line_bytes
    for name, value in headers:
        if len(name) + len(value) + 2 > max_bytes:
            raise headers_too_large(f"a header line longer than {max_bytes} bytes")


def check_unfinished(data: bytes, limits: HttpLimits) -> None:
    """Check a head that is still incomplete. Raises GatewayError 400, 414 or 431."""
    line_end = data.find(b"\r\n")
    if line_end < 0:
        check_protocol(data[:1])
        if len(data) > limits.max_request_line_bytes:
            raise uri_too_long()
        if b"\n" in data:
            raise bad_request("The request is not valid HTTP: lines must end with CRLF.")
        return
    if line_end > limits.max_request_line_bytes:
        raise uri_too_long()
    check_protocol(data[:line_end])
    if len(data) - line_end > max_head_bytes(limits):
        raise headers_too_large(f"more than {max_head_bytes(limits)} bytes of headers")
    if b"\n\n" in data:
        raise bad_request("The request is not valid HTTP: lines must end with CRLF.")


def check_protocol(line: bytes) -> None:
    """Check that a request line, or the first byte of one, is of HTTP and no other protocol. Raises GatewayError 400.

    llhttp also takes RTSP and ICE. Others are refused at their first bytes instead of after header_seconds.
    """
    if line.startswith(TLS_HANDSHAKE):
        raise bad_request("This is TLS, and the port speaks plain HTTP: use http://, or a TLS proxy in front.")
    if line and not line[:1].isalpha():
        raise bad_request("The request is not valid HTTP: it does not begin with a method.")
    protocol = line[line.rfind(b" ") + 1 :].partition(b"/")[0]
    if len(line) > 1 and protocol not in (b"HTTP", b""):  # none: HTTP/0.9, or a target without a version
        raise bad_request("The request is not valid HTTP: its first line does not end with HTTP/1.1 or HTTP/1.0.")


def max_head_bytes(limits: HttpLimits) -> int:
    """Return the maximum total size of header lines: far more than any client sends, far less than does harm."""
    return max(65_536, 2 * limits.max_header_line_bytes)


def uri_too_long() -> GatewayError:
    """Return the error for a request line that exceeds the limit."""
    return GatewayError("uri_too_long", "The request line is too long.")


def headers_too_large(what: str) -> GatewayError:
    """Return the error for headers that exceed a limit."""
    return GatewayError("header_fields_too_large", f"The request has {what}.")
