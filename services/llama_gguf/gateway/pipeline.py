"""What happens to a request, in order.

`admit` does all that needs no body and no waiting: route, method, key, scope, and answers that are the gateway's own.
`serve` does the rest: body, limits, queue, engine, relay. Each request is answered once, recorded once, and what it
reserved is settled and released whichever way it ends; cancelling `serve` (the client has gone) cuts the engine's
connection, which frees its slot.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llama_gguf.errors import GatewayError
from llama_gguf.gateway.api import auth
from llama_gguf.gateway.api.cors import Cors
from llama_gguf.gateway.api.error_responses import error_body, error_event, error_headers
from llama_gguf.gateway.api.routes import RouteTable, dialect_of
from llama_gguf.gateway.builtin_routes import OwnRoutes
from llama_gguf.gateway.exchange import Exchange, Outcome
from llama_gguf.gateway.http1.message import HeaderLines, Request, header_lines
from llama_gguf.gateway.http1.sink import Sink
from llama_gguf.gateway.inference import Forwarder
from llama_gguf.gateway.interfaces import Recorder
from llama_gguf.keys.keyring import Ring
from llama_gguf.settings.sections.scope import Scope

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

JSON = ("Content-Type", "application/json")


class RingHolder(Protocol):
    """Who knows the keys in force."""

    ring: Ring


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call: whether keys are wanted, who holds the ring, the time, and one more header for the key."""

    enabled: bool
    keys: RingHolder
    clock: Callable[[], float]
    extra_header: bytes | None


class _Findings:
    """What `admit` found for a request's head: good while `ring` is in force, and for keys that no time can end."""

    __slots__ = ("base_lines", "error", "key", "ring", "route", "variable")

    def __init__(self, ring: Ring, exchange: Exchange, error: GatewayError | None) -> None:
        self.ring = ring
        self.route = exchange.route
        self.variable = exchange.variable
        self.key = exchange.key
        self.base_lines = exchange.base_lines
        self.error = error


class Pipeline:
    """The way of every request through the gateway. Belongs to one event loop."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        access: Access,
        cors: Cors,
        forwarder: Forwarder,
        own: OwnRoutes,
        recorder: Recorder,
    ) -> None:
        self._routes = routes
        self._access = access
        self._cors = cors
        self._forwarder = forwarder
        self._own = own
        self._recorder = recorder
        self._ids = itertools.count()
        self._id_prefix = f"req-{os.urandom(6).hex()}-"
        self.in_flight = 0
        self._idle = asyncio.Event()

    def begin(self, request: Request, sink: Sink) -> Exchange:
        """Take up a request. From here on `admit`/`serve`, `refuse` or `lost` must end it."""
        sent = request.head.headers.get(b"x-request-id")
        identity = request_id(sent) if sent is not None else f"{self._id_prefix}{next(self._ids):x}"
        self.in_flight += 1
        return Exchange(request, sink, identity, time.monotonic())

    def admit(self, exchange: Exchange) -> bool:
        """Check route and key. Returns False when the request has been answered and its body is not wanted."""
        head = exchange.request.head
        memo = head.memo
        if memo.__class__ is _Findings and memo.ring is self._access.keys.ring:
            # The same head as before, byte for byte, and the same keys in force: the same findings.
            exchange.route, exchange.variable, exchange.key = memo.route, memo.variable, memo.key
            exchange.base_lines = memo.base_lines
            if memo.error is None:
                return True
            self.refuse(exchange, memo.error)
            return False
        try:
            if self._answered_at_once(exchange):
                return False
        except GatewayError as error:
            head.memo = _Findings(self._access.keys.ring, exchange, error)  # no time makes a bad key good
            self.refuse(exchange, error)
            return False
        key = exchange.key
        if key is None or (key.expires is None and not key.previous):
            head.memo = _Findings(self._access.keys.ring, exchange, None)
        return True

    def _answered_at_once(self, exchange: Exchange) -> bool:
        """Find route and key; answer preflights and signs of life. Raises GatewayError."""
        request = exchange.request
        if self._cors.enabled:
            exchange.base_lines = header_lines(self._cors.headers(request.headers.get(b"origin")))
        if request.method == "OPTIONS":
            self._preflight(exchange)
            return True
        route, exchange.variable = self._routes.find(request.method, request.path)
        exchange.route = route
        if route.scope is not None:
            self._authorise(exchange, route.scope)
        if route.kind in ("ping", "live", "health"):
            self.answer(exchange, *self._own.answer_now(route.kind))
            return True
        return False

    def _authorise(self, exchange: Exchange, scope: Scope) -> None:
        access = self._access
        if not access.enabled:
            exchange.key = auth.ANONYMOUS
        else:
            exchange.key = auth.authenticate(
                exchange.request.headers, access.keys.ring, access.clock(), access.extra_header
            )
        auth.require_scope(exchange.key, scope)

    def _preflight(self, exchange: Exchange) -> None:
        headers = exchange.request.headers
        methods = self._routes.methods(exchange.request.path) or ["GET", "POST"]
        exchange.base_lines = header_lines(
            self._cors.preflight(headers.get(b"origin"), headers.get(b"access-control-request-headers"), methods)
        )
        self.answer(exchange, 204, "", b"")

    async def serve(self, exchange: Exchange) -> None:
        """Answer a request that `admit` let in and whose body is there. Raises only CancelledError."""
        route = exchange.route
        assert route is not None  # noqa: S101 - `admit` found it
        try:
            if route.kind == "relay":
                await self._forwarder.relay(exchange)
                self._close(exchange)
                return
            await asyncio.sleep(0)  # on as a task: what follows has timeouts
            answering = self._forwarder.present if route.kind in ("models", "props") else self._own.answer
            self.answer(exchange, *await answering(exchange))
        except asyncio.CancelledError:
            self.lost(exchange)
            raise
        except GatewayError as error:
            self.refuse(exchange, error)
        except Exception:  # noqa: BLE001 - the last line of defence; the client gets a 500 and we the traceback
            _log.exception("request failed", extra={"fields": {"request_id": exchange.request_id}})
            self.refuse(exchange, GatewayError(500, "internal_error", "The gateway failed.", type="server_error"))

    def answer(self, exchange: Exchange, status: int, fields: HeaderLines, body: bytes) -> None:
        """Answer as a whole and record."""
        exchange.send(status, fields, body)
        self._close(exchange)

    def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """Answer with an error: a status of its own, or, where a stream has begun, an event in it."""
        exchange.error_code = error.code
        exchange.outcome = _outcome(error)
        dialect = exchange.route.dialect if exchange.route is not None else dialect_of(exchange.request.path)
        if dialect == "anthropic":
            exchange.speak_anthropic()
        if not exchange.started:
            fields = header_lines([JSON, *error_headers(error)])
            exchange.send(error.status, fields, error_body(error, dialect, exchange.request_id))
        elif exchange.broken_event or error.code == "client_stalled":
            exchange.sink.abort()
        else:
            exchange.write_event(error_event(error, dialect, exchange.request_id))
            exchange.sink.end()
        self._close(exchange)

    def lost(self, exchange: Exchange) -> None:
        """Record a request whose client went away; does nothing for one that has ended."""
        if not exchange.closed:
            exchange.outcome = "client_gone"
            self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        if not exchange.closed:
            exchange.closed = True
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            if exchange.recount is None:
                self._recorder.ended(exchange)
            else:  # its tokens are still being counted
                exchange.ended = time.monotonic()
                exchange.recount.add_done_callback(lambda _: self._recorder.ended(exchange))

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()


def _outcome(error: GatewayError) -> Outcome:
    if error.code == "internal_error":
        return "internal_error"
    if error.status == 504:
        return "timeout"
    if error.code in ("engine_unreachable", "engine_failed", "engine_closed", "engine_protocol", "engine_refused"):
        return "upstream_error"
    if error.status in (401, 403, 429, 503):
        return "rejected"
    return "engine_error" if error.status >= 500 else "client_error"


def request_id(sent: bytes | None) -> str:
    """Return the client's request id if it is a sane one, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return uuid.uuid4().hex
