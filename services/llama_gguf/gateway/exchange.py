"""The state of one request in the gateway: request, key, response and times.

Holds plain values only; `pipeline` acts on them. `http1` creates the Request and is the ResponseSink.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from llama_gguf.gateway.api.routes import Route
from llama_gguf.gateway.http1.handler import ResponseSink
from llama_gguf.gateway.http1.message import HeaderLines, Request
from llama_gguf.gateway.tokens.counts import Tokens
from llama_gguf.gateway.translate.translation import Translation
from llama_gguf.keys.record import KeyRecord

Outcome = Literal[
    "ok", "rejected", "client_error", "client_gone", "engine_error", "upstream_error", "timeout", "internal_error"
]
# Without the charset some clients decode text/* as ISO-8859-1 (Python's requests, Spring).
_STREAM_LINES = "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"


class Exchange:
    """The state of one request. Times are of the monotonic clock, in seconds; 0.0 = has not happened.

    Most requests never change most of it, so the defaults are class attributes and cost nothing. Each attribute is
    written by one part of the gateway, as grouped here (`tests/contract/test_layout.py` asserts it), and read by all.
    """

    # Written by `pipeline`, which finds route and key, and records the outcome.
    route: Route | None = None
    path_param = ""  # the value of {id} in the route's template
    key: KeyRecord | None = None
    cors_lines: HeaderLines = ""
    entered = False  # has reserved `body_bytes`, those of its body
    body_bytes = 0
    closed = False  # has been recorded
    outcome: Outcome = "ok"
    error_code = ""
    ended = 0.0
    # Written by `inference`, which checks the body and holds reservation and slot.
    model = ""
    stream = False
    changed_by_rules = ""  # the parameters that rules of the model or the key have set, bounded or left out
    sequences = 1  # choices in total: those for each prompt, times the prompts
    choices = 1  # requested for each prompt (`n`)
    body_type = b"application/json"  # Content-Type of the request to the engine
    limit_lines: HeaderLines = ""
    warning_lines: HeaderLines = ""  # what the client is told about its request, besides the response
    translation: Translation | None = None  # of the engine's response into its API's shape
    admitted = False  # has acquired a slot of the engine, after `queued_seconds`
    queued_seconds = 0.0
    usage_number = 0  # the end of the usage id, by which the engine stores this request's usage
    # Written by `relay`, which passes the response on and counts its tokens.
    first_byte = 0.0
    partial_event_sent = False  # an incomplete event was sent, so no well-formed one can follow
    tokens: Tokens | None = None
    unseen_seconds = 0.0  # for how long the engine generated a non-streamed response that was then aborted
    usage_query: asyncio.Future[None] | None = None  # done when the estimate has been replaced with the engine's count
    # Written here, when the response is sent.
    started = False  # the status line was sent; no other response is possible
    complete = False  # all of the response has been sent; nothing can follow, not even an error
    status = 0
    bytes_sent = 0
    id_name = "X-Request-Id: "  # what precedes the request id in the response's headers

    def __init__(self, request: Request, sink: ResponseSink, request_id: str, arrived: float) -> None:
        self.request = request
        self.sink = sink
        self.request_id = request_id
        self.arrived = arrived

    def add_anthropic_request_id(self) -> None:
        """Also send the request id in the header that Anthropic's clients read."""
        self.id_name = f"Request-Id: {self.request_id}\r\nX-Request-Id: "

    def send(self, status: int, lines: HeaderLines, body: bytes) -> None:
        """Send a complete response."""
        self.started = self.complete = True
        self.status = status
        self.bytes_sent += len(body)
        self.sink.send(status, f"{lines}{self._common_lines()}", body)

    def open_stream(self, first: bytes, *, framed: bool) -> bool:
        """Send the headers of an event stream and its first bytes; `framed`: they are already chunked."""
        self.started = True
        self.status = 200
        self.bytes_sent += len(first)
        return self.sink.open(200, f"{_STREAM_LINES}{self._common_lines()}", first, framed=framed)

    def _common_lines(self) -> HeaderLines:
        return f"{self.id_name}{self.request_id}\r\n{self.cors_lines}{self.limit_lines}{self.warning_lines}"

    def end_stream(self, *, framed: bool = False) -> None:
        """Finish the stream; `framed`: its last chunk has been sent."""
        self.complete = True
        self.sink.end(framed=framed)

    def write_event(self, event: bytes) -> bool:
        """Write one of the gateway's own events to the stream, which it starts if necessary."""
        if not self.started:
            return self.open_stream(event, framed=False)
        self.bytes_sent += len(event)
        return self.sink.write(event)


RequestKind = tuple[Route | None, str, str, int, Outcome, str, str, str, bool, str]
"""What requests have in common that are counted and logged together: route, method, path, status, outcome, error code,
key id, model, whether it streams, what rules changed. The path is set only for a request without a route."""


def request_kind(exchange: Exchange) -> RequestKind:
    """Return the kind of a completed request."""
    route, key, head = exchange.route, exchange.key, exchange.request.head
    return (
        route,
        head.method,
        "" if route is not None else head.path,
        exchange.status,
        exchange.outcome,
        exchange.error_code,
        key.id if key is not None else "",
        exchange.model,
        exchange.stream,
        exchange.changed_by_rules,
    )
