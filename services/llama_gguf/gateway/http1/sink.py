"""Where the response to a request goes: what the server gives its handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llama_gguf.gateway.http1.message import HeaderLines


class Sink(Protocol):
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
