"""The interface between the HTTP server and whoever handles its requests.

The server (`connection`) calls a Handler and gives it a ResponseSink for each request. What the handler keeps of a
request is its own: the server carries it from call to call and reads nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.message import HeaderLines, Request

ExchangeT = TypeVar("ExchangeT")
"""What a handler keeps of one request, from `begin` to its end."""
AdmittedT = TypeVar("AdmittedT")
"""What it has found out about the request before the body was read, where the request may go on."""


class ResponseSink(Protocol):
    """Where an answer goes. Calls come from the event loop's thread; none blocks and none raises.

    Either one `send`, or `open`, then any of `write_framed`/`write`, then `end` or `abort`. After the client has
    gone, all of them do nothing.
    """

    takes_chunks: bool
    """Whether the client reads chunked bodies as the engine frames them (`write_framed`)."""
    on_writable: Callable[[], None] | None
    """Called when the client has taken enough of what was written, after a write returned False."""

    def send(self, status: int, lines: HeaderLines, body: bytes) -> None:
        """Answer as a whole."""

    def open(self, status: int, lines: HeaderLines, first: bytes, *, framed: bool) -> bool:
        """Begin a chunked answer; `first` carries its chunk framing or not. False: let the client catch up."""

    def write_framed(self, data: bytes) -> bool:
        """Write bytes that carry their chunk framing. Only where `takes_chunks`."""

    def write(self, data: bytes) -> bool:
        """Write bytes of the body; the sink frames them."""

    def end(self, *, framed: bool = False) -> None:
        """Finish a chunked answer; `framed` says that the last chunk has been written as it came."""

    def abort(self) -> None:
        """Cut the connection: the answer cannot be finished."""


class Handler(Protocol[ExchangeT, AdmittedT]):
    """Answers requests. Each one that has begun is ended by `admit`, `serve`, `refuse` or `lost`; none of them raises.

    Called from the event loop's thread.
    """

    def begin(self, request: Request, sink: ResponseSink) -> ExchangeT:
        """Start on a request whose headers are there; its body may be to come."""

    def admit(self, exchange: ExchangeT) -> AdmittedT | None:
        """Look at the headers. None: the request has been answered, and its body is not wanted."""

    def serve(self, exchange: ExchangeT, admitted: AdmittedT) -> Coroutine[Any, Any, None]:
        """Answer a request whose body is there. Cancelled when the client disconnects."""

    def refuse(self, exchange: ExchangeT, error: GatewayError) -> None:
        """Answer with what is wrong with the request as HTTP."""

    def lost(self, exchange: ExchangeT) -> None:
        """Note that the client has disconnected before its request was complete."""
