"""The interface between the HTTP server and the handler of its requests.

The server (`connection`) calls a Handler and passes it a ResponseSink for each request. The state that the handler
keeps of a request is opaque to the server, which only passes it from call to call.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.message import HeaderLines, Request

ExchangeT = TypeVar("ExchangeT")
"""The handler's state of one request, from `begin` to its end."""
AdmittedT = TypeVar("AdmittedT")
"""What `admit` returns for a request that is to be served once its body has arrived."""


class ResponseSink(Protocol):
    """Where a response is written. Calls come from the event loop's thread; none blocks and none raises.

    Either one `send`, or `open`, then any of `write_framed`/`write`, then `end` or `abort`. After the client has
    disconnected, all of them do nothing.
    """

    accepts_chunked: bool
    """Whether the client accepts chunked bodies, so that the engine's chunks can be passed on (`write_framed`)."""
    on_writable: Callable[[], None] | None
    """Called when the write buffer has drained, after a write returned False."""

    def send(self, status: int, lines: HeaderLines, body: bytes) -> None:
        """Send a complete response."""

    def open(self, status: int, lines: HeaderLines, first: bytes, *, framed: bool) -> bool:
        """Start a streamed response; `framed`: `first` is already chunked. False: pause until `on_writable`."""

    def write_framed(self, data: bytes) -> bool:
        """Write bytes that are already chunked. Only if `accepts_chunked`."""

    def write(self, data: bytes) -> bool:
        """Write bytes of the body; the sink adds the framing."""

    def end(self, *, framed: bool = False) -> None:
        """Finish a streamed response; `framed`: the last chunk has already been written."""

    def close_after_response(self) -> None:
        """Serve no other request on this connection. Only before the response."""

    def abort(self) -> None:
        """Abort the connection: the response cannot be finished."""


class Handler(Protocol[ExchangeT, AdmittedT]):
    """Handles requests. Each one begun is ended by `admit`, `serve`, `refuse` or `disconnected`; none of them raises.

    Called from the event loop's thread.
    """

    def begin(self, request: Request, sink: ResponseSink) -> ExchangeT:
        """Start a request whose headers have arrived; its body might not have."""

    def admit(self, exchange: ExchangeT) -> AdmittedT | None:
        """Check the headers. None: the response has been sent, and the body is not needed."""

    def serve(self, exchange: ExchangeT, admitted: AdmittedT) -> Coroutine[Any, Any, None]:
        """Respond to a request whose body has arrived. Cancelled when the client disconnects."""

    def refuse(self, exchange: ExchangeT, error: GatewayError) -> None:
        """Respond with an error to a request that is not valid HTTP."""

    def disconnected(self, exchange: ExchangeT) -> None:
        """Record that the client has disconnected before its request was complete."""
