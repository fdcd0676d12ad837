"""The steps of handling a request, in order.

`admit` does everything that needs neither body nor waiting: route, method, key, scope, and responses of the gateway
itself. `serve` does the rest: body, limits, queue, engine, relay. Each request gets one response and is recorded once,
and what it reserved is settled and released however it ends; cancelling `serve` (the client has disconnected) aborts
the connection to the engine, which frees the slot.
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
from typing import NamedTuple, Protocol

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api import auth
from llama_gguf.gateway.api.cors import Cors
from llama_gguf.gateway.api.error_responses import error_body, error_event, error_headers
from llama_gguf.gateway.api.routes import Route, RouteTable, dialect_of
from llama_gguf.gateway.api.wrong_keys import WrongKeys
from llama_gguf.gateway.builtin_routes import BuiltinRoutes
from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.handler import ResponseSink
from llama_gguf.gateway.http1.inline_task import continue_as_task
from llama_gguf.gateway.http1.message import HeaderLines, Request, header_lines
from llama_gguf.gateway.inference import InferenceRoutes
from llama_gguf.gateway.ratelimit.intake import Intake
from llama_gguf.gateway.telemetry.recorder import Recorder
from llama_gguf.keys.keyring import Keyring
from llama_gguf.keys.record import KeyRecord
from llama_gguf.open_connections import peer_of

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

JSON = ("Content-Type", "application/json")


class KeyringHolder(Protocol):
    """Holds the current keyring."""

    ring: Keyring


@dataclass(frozen=True, slots=True)
class Access:
    """How clients authenticate: whether keys are required, the keyring, the time, and one more header for the key.

    `local_metrics`: programs of this machine need no key for /metrics.
    """

    enabled: bool
    keys: KeyringHolder
    clock: Callable[[], float]
    extra_header: bytes | None
    local_metrics: bool = False


class Admitted(NamedTuple):
    """A request that is to be served: its route and its key, which is `auth.ANONYMOUS` if none is required."""

    route: Route
    key: KeyRecord


class _AdmitResult:
    """The cached result of `admit` for a request's head. Valid while `ring` is current; not for keys that expire."""

    __slots__ = ("admitted", "cors_lines", "error", "key", "path_param", "ring", "route")

    def __init__(self, ring: Keyring, exchange: Exchange, found: Admitted | GatewayError) -> None:
        self.ring = ring
        self.route = exchange.route
        self.path_param = exchange.path_param
        self.key = exchange.key
        self.cors_lines = exchange.cors_lines
        self.admitted = None if isinstance(found, GatewayError) else found
        self.error = found if isinstance(found, GatewayError) else None


class Pipeline:
    """Handles every request of the gateway. Belongs to one event loop."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        access: Access,
        cors: Cors,
        inference: InferenceRoutes,
        builtin: BuiltinRoutes,
        recorder: Recorder,
        intake: Intake,
    ) -> None:
        self._routes = routes
        self._access = access
        self._cors = cors
        self._inference = inference
        self._builtin = builtin
        self._recorder = recorder
        self._intake = intake
        self._wrong_keys = WrongKeys()
        self._ids = itertools.count()
        self._id_prefix = f"req-{os.urandom(6).hex()}-"
        self.in_flight = 0
        self._idle = asyncio.Event()

    def begin(self, request: Request, sink: ResponseSink) -> Exchange:
        """Start a request, which `admit`, `serve`, `refuse` or `disconnected` must end."""
        sent = request.head.headers.get(b"x-request-id")
        identity = request_id(sent) if sent is not None else f"{self._id_prefix}{next(self._ids):x}"
        self.in_flight += 1
        return Exchange(request, sink, identity, time.monotonic())

    def admit(self, exchange: Exchange) -> Admitted | None:
        """Find route and key. Returns None if the response has been sent and the body is not needed."""
        admitted = self._find(exchange)
        if admitted is None:
            return None
        length = exchange.request.head.length
        if admitted.route.kind != "relay" and length == 0:  # the gateway's own, and it holds nothing
            return admitted
        try:
            exchange.body_bytes = self._intake.enter(admitted.key, length)
        except GatewayError as error:
            self.refuse(exchange, error)
            return None
        exchange.entered = True
        return admitted

    def _find(self, exchange: Exchange) -> Admitted | None:
        head = exchange.request.head
        memo = head.memo
        if memo.__class__ is _AdmitResult and memo.ring is self._access.keys.ring:
            # The same head as before, byte for byte, and the same keyring: the same result.
            exchange.route, exchange.path_param, exchange.key = memo.route, memo.path_param, memo.key
            exchange.cors_lines = memo.cors_lines
            if memo.error is not None:
                self._refuse_unadmitted(exchange, memo.error)
            admitted: Admitted | None = memo.admitted
            return admitted
        try:
            admitted = self._admit(exchange)
        except GatewayError as error:
            head.memo = _AdmitResult(self._access.keys.ring, exchange, error)  # an invalid key never becomes valid
            self._refuse_unadmitted(exchange, error)
            return None
        if admitted is not None and admitted.key.expires is None and not admitted.key.previous:
            head.memo = _AdmitResult(self._access.keys.ring, exchange, admitted)
        return admitted

    def _refuse_unadmitted(self, exchange: Exchange, error: GatewayError) -> None:
        if isinstance(error, auth.WrongKeyError):
            slowed = self._wrong_keys.count(peer_of(exchange.request.peer), time.monotonic())
            if slowed is not None:
                error = slowed
                exchange.sink.close_after_response()
        self.refuse(exchange, error)

    def _admit(self, exchange: Exchange) -> Admitted | None:
        """Find route and key; respond to preflight, liveness and health requests. Raises GatewayError."""
        request = exchange.request
        if self._cors.enabled:
            exchange.cors_lines = header_lines(self._cors.headers(request.headers.get(b"origin")))
        if request.method == "OPTIONS":
            self._preflight(exchange)
            return None
        route, exchange.path_param = self._find_route(request)
        exchange.route = route
        key = auth.ANONYMOUS
        if route.scope is not None and not self._open_to_local(route, request):
            key = exchange.key = self._authenticate(request)
            auth.require_scope(key, route.scope)
        self._inference.check_supported(route)
        if route.kind in ("ping", "live", "health"):
            self.respond(exchange, *self._builtin.respond_now(route.kind))
            return None
        return Admitted(route, key)

    def _find_route(self, request: Request) -> tuple[Route, str]:
        try:
            return self._routes.find(request.method, request.path)
        except GatewayError as error:
            if error.code == "method_not_allowed" and b"websocket" in request.headers.get(b"upgrade", b"").lower():
                raise websocket_refused() from None
            raise

    def _open_to_local(self, route: Route, request: Request) -> bool:
        return route.kind == "metrics" and self._access.local_metrics and auth.is_local(request.peer, request.headers)

    def _authenticate(self, request: Request) -> KeyRecord:
        access = self._access
        if not access.enabled:
            return auth.ANONYMOUS
        return auth.authenticate(request.headers, access.keys.ring, access.clock(), access.extra_header)

    def _preflight(self, exchange: Exchange) -> None:
        headers = exchange.request.headers
        methods = self._routes.methods(exchange.request.path) or ["GET", "POST"]
        exchange.cors_lines = header_lines(
            self._cors.preflight(headers.get(b"origin"), headers.get(b"access-control-request-headers"), methods)
        )
        self.respond(exchange, 204, "", b"")

    async def serve(self, exchange: Exchange, admitted: Admitted) -> None:
        """Respond to a request that `admit` has accepted and whose body has arrived. Raises only CancelledError."""
        route, key = admitted
        if exchange.body_bytes != (length := len(exchange.request.body)):
            exchange.body_bytes = self._intake.arrived(key, exchange.body_bytes, length)
        try:
            if route.kind == "relay":
                await self._inference.relay(exchange, route, key)
                self._close(exchange)
                return
            await continue_as_task()  # what follows has timeouts
            handler = self._inference.present if route.kind in ("models", "props") else self._builtin.respond
            self.respond(exchange, *await handler(exchange, route, key))
        except asyncio.CancelledError:
            self.disconnected(exchange)
            raise
        except GatewayError as error:
            self.refuse(exchange, error)
        except Exception:  # noqa: BLE001 - a bug must not end the connection without a response: 500 and a traceback
            _log.exception("request failed", extra={"fields": {"request_id": exchange.request_id}})
            self.refuse(exchange, GatewayError("internal_error", "Internal error of the gateway."))

    def respond(self, exchange: Exchange, status: int, fields: HeaderLines, body: bytes) -> None:
        """Send a complete response and record the request."""
        exchange.send(status, fields, body)
        self._close(exchange)

    def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """Respond with an error: with its status, as an event if a stream has started, or not if all has been sent."""
        exchange.error_code = error.code
        exchange.outcome = error.outcome
        dialect = exchange.route.dialect if exchange.route is not None else dialect_of(exchange.request.path)
        if dialect == "anthropic":
            exchange.add_anthropic_request_id()
        if not exchange.started:
            fields = header_lines([JSON, *error_headers(error)])
            exchange.send(error.status, fields, error_body(error, dialect, exchange.request_id))
        elif exchange.partial_event_sent or error.code == "client_stalled":
            exchange.sink.abort()
        elif not exchange.complete:
            exchange.write_event(error_event(error, dialect, exchange.request_id))
            exchange.end_stream()
        self._close(exchange)

    def disconnected(self, exchange: Exchange) -> None:
        """Record a request whose client has disconnected; does nothing if the request has ended."""
        if not exchange.closed:
            exchange.outcome = "client_gone"
            self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        if not exchange.closed:
            exchange.closed = True
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            if exchange.entered:
                self._intake.leave(exchange.key or auth.ANONYMOUS, exchange.body_bytes)
            exchange.ended = time.monotonic()
            if exchange.usage_query is None:
                self._recorder.ended(exchange)
            else:  # its token counts are still being queried
                exchange.usage_query.add_done_callback(lambda _: self._recorder.ended(exchange))

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()


def websocket_refused() -> GatewayError:
    """Return the error for a WebSocket handshake on a route of POST requests; a client can go on over HTTP."""
    return GatewayError(
        "upgrade_required",
        "There is no WebSocket here; send the request by POST over HTTP/1.1.",
        headers=(("Upgrade", "HTTP/1.1"), ("Connection", "Upgrade")),  # RFC 9110, 15.5.22
    )


def request_id(sent: bytes | None) -> str:
    """Return the client's request id if it is well-formed, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return uuid.uuid4().hex
