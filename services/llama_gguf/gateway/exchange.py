"""One request on its way through the gateway: what was asked, who asked, what was answered and when.

Owns plain values only; `pipeline` acts on them. `http1` makes the Request and is the ResponseSink.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from llama_gguf.gateway.api.routes import Route
from llama_gguf.gateway.http1.handler import ResponseSink
from llama_gguf.gateway.http1.message import HeaderLines, Request
from llama_gguf.gateway.tokens.counts import Tokens
from llama_gguf.keys.record import KeyRecord

Outcome = Literal[
    "ok", "rejected", "client_error", "client_gone", "engine_error", "upstream_error", "timeout", "internal_error"
]
_STREAM_LINES = "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"


class Exchange:
    """The state of one request. Times are of the monotonic clock, in seconds; 0.0 = has not happened.

    Most requests never change most of it, so the defaults stand in the class and cost nothing. Each attribute is
    written by one part of the gateway, as grouped here (`tests/contract/test_layout.py` asserts it), and read by all.
    """

    # Written by `pipeline`, which finds out who asks for what, and how it ended.
    route: Route | None = None
    path_param = ""  # the part of the path that varies
    key: KeyRecord | None = None
    cors_lines: HeaderLines = ""
    closed = False  # recorded as ended
    outcome: Outcome = "ok"
    error_code = ""
    ended = 0.0
    # Written by `inference`, which reads the body and holds the limits and the slot.
    model = ""
    stream = False
    sequences = 1  # answers that were asked for in one
    choices = 1  # how many of them to each prompt
    body_type = b"application/json"  # of the request as the engine gets it
    limit_lines: HeaderLines = ""
    admitted = False  # got a slot of the engine, after `queued_seconds`
    queued_seconds = 0.0
    usage_number = 0  # ends the id under which the engine keeps what this request uses
    # Written by `relay`, which sees the response pass and counts it.
    first_byte = 0.0
    partial_event_sent = False  # part of an event has gone out: nothing well formed can follow
    tokens: Tokens | None = None
    unseen_seconds = 0.0  # for so long an answer was made of which nothing was seen
    usage_query: asyncio.Future[None] | None = None  # ends when the engine has been asked about the estimate
    # Written here, as the response goes out.
    started = False  # a status line has gone out; nothing may be answered a second time
    status = 0
    bytes_sent = 0
    id_name = "X-Request-Id: "  # what stands before the id in the response's head

    def __init__(self, request: Request, sink: ResponseSink, request_id: str, arrived: float) -> None:
        self.request = request
        self.sink = sink
        self.request_id = request_id
        self.arrived = arrived

    def speak_anthropic(self) -> None:
        """Name the id in the answer's head as Anthropic's clients look for it, too."""
        self.id_name = f"Request-Id: {self.request_id}\r\nX-Request-Id: "

    def send(self, status: int, lines: HeaderLines, body: bytes) -> None:
        """Answer as a whole."""
        self.started = True
        self.status = status
        self.bytes_sent += len(body)
        self.sink.send(status, f"{lines}{self.id_name}{self.request_id}\r\n{self.cors_lines}{self.limit_lines}", body)

    def open_stream(self, first: bytes, *, framed: bool) -> bool:
        """Send the head of an event stream and its first bytes; `framed` as the sink takes chunks."""
        self.started = True
        self.status = 200
        self.bytes_sent += len(first)
        lines = f"{_STREAM_LINES}{self.id_name}{self.request_id}\r\n{self.cors_lines}{self.limit_lines}"
        return self.sink.open(200, lines, first, framed=framed)

    def write_event(self, event: bytes) -> bool:
        """Write an event of the gateway's own into the stream, beginning it where it has not begun."""
        if not self.started:
            return self.open_stream(event, framed=False)
        self.bytes_sent += len(event)
        return self.sink.write(event)


RequestKind = tuple[Route | None, str, str, int, Outcome, str, str, str, bool]
"""What many requests have in common, so that they are counted and told together: route, method, path, status, outcome,
error code, key id, model, whether it streams. The path is only that of a request without a route."""


def request_kind(exchange: Exchange) -> RequestKind:
    """Return the kind of a request that has ended."""
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
    )
