"""Handles inference requests: checks the body, applies limits and the queue, relays to the engine, settles.

Owns the order in which a request acquires a reservation and a slot of the engine, and releases them, however it ends.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llama_gguf.api_errors import GatewayError
from llama_gguf.errors import KeysError
from llama_gguf.gateway.api import auth
from llama_gguf.gateway.api.engine_views import present_models, present_props
from llama_gguf.gateway.api.multipart import read_form
from llama_gguf.gateway.api.routes import Route
from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.deadlines import DeadlineChecker
from llama_gguf.gateway.http1.inline_task import continue_as_task
from llama_gguf.gateway.http1.message import HeaderLines
from llama_gguf.gateway.ratelimit.limiter import RateLimiter
from llama_gguf.gateway.relay.accounting import begin_part, end_part, record_complete_usage
from llama_gguf.gateway.relay.response_relay import ResponseRelay
from llama_gguf.gateway.relay.settlement import Settlement
from llama_gguf.gateway.relay.sse import KEEPALIVE_EVENT
from llama_gguf.gateway.relay.upstream_call import UpstreamCaller
from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.json_body import read_json
from llama_gguf.gateway.request.parts import join_parts, split_parts
from llama_gguf.gateway.request.reader import LARGE_BODY_BYTES, RequestReader, without_cache
from llama_gguf.gateway.request.template import check_tools_of_template
from llama_gguf.gateway.scheduling.admission import Admission
from llama_gguf.gateway.tokens.counts import Tokens
from llama_gguf.gateway.tokens.estimate import estimate_chat_tokens, estimate_transcription_tokens
from llama_gguf.gateway.translate.by_route import TRANSLATED_GROUPS, find_translation
from llama_gguf.gateway.translate.translation import translate_body
from llama_gguf.gateway.upstream.engine_description import EngineDescription
from llama_gguf.gateway.upstream.engine_features import EngineFeatures
from llama_gguf.gateway.upstream.errors import engine_error
from llama_gguf.gateway.upstream.request import engine_head, engine_request, usage_head
from llama_gguf.keys.record import KeyRecord
from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_MAX_HEADS = 4096
_TEXT_GROUPS = frozenset({"chat", "completions", "responses", "messages", "infill", "audio"})

AuditCall = Callable[[str, str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings for relayed requests."""

    served_models: tuple[str, ...]
    keepalive_seconds: float
    context: int  # tokens one request can use, 0 = unknown
    cache_by_key: bool  # a prompt reuses only what its own key has sent
    generates_text: bool  # engine.task
    audio: bool  # the model might take audio; only the engine knows


class InferenceRoutes:
    """Handles the routes that the engine serves. Belongs to one event loop."""

    def __init__(
        self,
        rules: Rules,
        *,
        reader: RequestReader,
        caller: UpstreamCaller,
        models: EngineDescription,
        props: EngineDescription,
        engine_key: str,
        admission: Admission,
        counting: Admission,
        features: EngineFeatures,
        has_many_keys: Callable[[], bool],
        limiter: RateLimiter,
        settlement: Settlement,
        usage_prefix: str,
        deadlines: DeadlineChecker,
        audit: AuditCall,
    ) -> None:
        self._rules = rules
        self._reader = reader
        self._caller = caller
        self._models = models
        self._props = props
        self._engine_key = engine_key
        self._admission = admission
        self._counting = counting
        self._features = features
        self._has_many_keys = has_many_keys
        self._limiter = limiter
        self._settlement = settlement
        self._deadlines = deadlines
        self._audit = audit
        self._heads: dict[tuple[Route, str], bytes] = {}  # constant for routes that generate, by the cache's scope
        self._usage_prefix = usage_prefix
        self._usage_numbers = itertools.count(1)

    def check_supported(self, route: Route) -> None:
        """Refuse what the model does not do before the body arrives. Raises GatewayError 501."""
        if not self._rules.generates_text and route.group in _TEXT_GROUPS and route.generates:
            raise GatewayError("not_supported", "This server's model does not generate text (engine.task).")
        if route.form_body and not self._rules.audio:
            raise GatewayError(
                "not_supported",
                "The model of this server takes no audio input; the operator may have to configure model.mmproj.",
            )

    async def relay(self, exchange: Exchange, route: Route, key: KeyRecord) -> None:
        """Relay a request to the engine and the response to the client. Raises GatewayError; releases everything."""
        if route.dialect == "anthropic":
            exchange.add_anthropic_request_id()
        try:
            cost = await self._check_body(exchange, route, key)
        except GatewayError:
            await self._charge_request(exchange, key)
            raise
        if route.group == "admin":
            await self._audit_admin_call(exchange, route, key)
        reservation = await self._limiter.reserve(key, cost)
        exchange.limit_lines = reservation.lines
        keep_alive = _KeepAlive(exchange, self._rules.keepalive_seconds) if exchange.stream else None
        ticket = None
        try:
            if keep_alive is not None:
                self._deadlines.add(keep_alive)
            if route.group == "admin":
                pass  # a few calls of an operator, of which some take minutes
            elif not route.queued:
                ticket = await self._counting.acquire(key.id, len(exchange.request.body), key.priority)
            elif exchange.sequences > self._admission.capacity and exchange.choices < exchange.sequences:
                await self._relay_parts(exchange, route, key, cost)
                return
            else:
                ticket = await self._admission.acquire(key.id, cost, key.priority, exchange.sequences)
                exchange.admitted = True
                exchange.queued_seconds = ticket.waited_seconds
            relay = await self._caller.call(exchange, self._request_bytes(exchange, route, key))
            self._finish(exchange, route, relay, cost)
        finally:
            if keep_alive is not None:
                self._deadlines.discard(keep_alive)
            used = None
            try:
                used = self._settlement.settle(exchange, reservation, cost)
            finally:  # a slot that is lost stays lost
                if ticket is not None:
                    ticket.release(used)

    async def _charge_request(self, exchange: Exchange, key: KeyRecord) -> None:
        """Charge a request that is refused for its body: it costs as much as another. Raises GatewayError."""
        reservation = await self._limiter.reserve(key, 0)
        exchange.limit_lines = reservation.lines
        self._settlement.charge(reservation, 0)

    async def _relay_parts(self, exchange: Exchange, route: Route, key: KeyRecord, cost: int) -> None:
        """Do the same for a request with more prompts than slots: a few at a time, each with its turn in the queue."""
        size = max(1, self._admission.capacity // exchange.choices)
        fields: dict[str, Any] = orjson.loads(exchange.request.body)
        parts = split_parts(route.group, fields, size)
        part_cost = -(-cost // len(parts))
        whole = Tokens()
        bodies: list[bytes] = []
        head = self._head(exchange, route, key)
        for part in parts:
            ticket = await self._admission.acquire(key.id, part_cost, key.priority, size * exchange.choices)
            try:
                if not exchange.admitted:
                    exchange.admitted = True
                    exchange.queued_seconds = ticket.waited_seconds
                begin_part(exchange)
                relay = await self._caller.call(exchange, engine_request(head, part, exchange.body_type))
                if relay.status >= 400:
                    raise engine_error(relay.status, relay.body)
                record_complete_usage(exchange, relay, part_cost)
                bodies.append(relay.body)
            finally:
                whole = end_part(exchange, whole)
                ticket.release(part_cost)
        joined = join_parts(route.group, fields, bodies, size)
        exchange.send(200, "Content-Type: application/json\r\n", joined)

    async def _audit_admin_call(self, exchange: Exchange, route: Route, key: KeyRecord) -> None:
        """Write an admin call to the audit log first; if that fails, the call is refused."""
        try:
            await self._audit(key.id, f"engine.{route.method.lower()}", exchange.request.path)
        except KeysError as error:
            _log.error("the audit log cannot be written", extra=fields(reason=error.message))
            raise GatewayError(
                "audit_unavailable", "Admin calls are refused while the audit log cannot be written."
            ) from error

    def _finish(self, exchange: Exchange, route: Route, relay: ResponseRelay, cost: int) -> None:
        """Count the tokens of a complete response, and send it unless it was streamed."""
        head = relay.head
        assert head is not None  # noqa: S101 - the response is complete
        if head.status >= 400:
            raise engine_error(head.status, relay.body)
        if route.generates:
            record_complete_usage(exchange, relay, cost)
        if relay.mode == "stream":
            return
        if exchange.started:  # a keep-alive comment has started a stream, but the engine's response is not one
            raise GatewayError("engine_protocol", "The engine did not respond with a stream.")
        body = relay.body
        if exchange.translation is not None:
            body = translate_body(exchange.translation, body)
        exchange.send(head.status, head.passed, body)

    async def _check_body(self, exchange: Exchange, route: Route, key: KeyRecord) -> int:
        """Check the body and return the request's estimated cost in tokens."""
        rules = self._rules
        raw = exchange.request.body
        if not route.json_body or (route.group == "admin" and not raw):
            if route.form_body:
                return self._check_form(exchange, key)
            exchange.model = rules.served_models[0]
            return 0
        if route.group == "admin":
            read_json(raw)  # the engine's own form, from somebody who may do all with it
            exchange.model = rules.served_models[0]
            return 0
        admin = "admin" in key.scopes
        if len(raw) < LARGE_BODY_BYTES:
            content = self._reader.read(route.fields_group, raw, admin=admin)
        else:  # what takes long must not keep the others waiting
            await continue_as_task()
            content = await asyncio.to_thread(self._reader.read, route.fields_group, raw, admin=admin)
        if content.data is not raw:
            exchange.request.body = content.data
        exchange.warning_lines = content.warning_lines
        exchange.model = auth.require_model(key, content.model, rules.served_models)
        if not route.generates:
            return 0
        if rules.cache_by_key and self._has_many_keys() and not await self._features.cache_scopes():
            exchange.request.body = without_cache(route.fields_group, content)
        if "tools" in content.fields:
            await self._check_tools(exchange, content.fields)
        exchange.stream = content.fields.get("stream", False)
        if route.group in TRANSLATED_GROUPS:
            exchange.translation = find_translation(
                route.group, content.fields, exchange.model, exchange.request_id, rules.context
            )
        exchange.choices = content.choices
        exchange.sequences = content.choices * content.prompts
        return estimate_chat_tokens(route.group, content.data, content.fields, rules.context)

    async def _check_tools(self, exchange: Exchange, fields: Mapping[str, Any]) -> None:
        """Refuse tools that the model's template cannot have, or tell of them. Raises GatewayError."""
        changes = Changes()
        check_tools_of_template(await self._props.body(), fields, changes)
        exchange.warning_lines += changes.header_lines()

    def _check_form(self, exchange: Exchange, key: KeyRecord) -> int:
        """Do the same for an upload, and replace its body with the form for the engine."""
        rules, request = self._rules, exchange.request
        form = read_form(request.body, request.headers.get(b"content-type", b""))
        exchange.model = auth.require_model(key, form.fields.get("model", ""), rules.served_models)
        exchange.stream = form.stream
        exchange.body_type, request.body = form.encode()
        return estimate_transcription_tokens(
            len(form.file), form.fields.get("prompt", ""), form.max_tokens, rules.context
        )

    def _request_bytes(self, exchange: Exchange, route: Route, key: KeyRecord) -> bytes:
        return engine_request(self._head(exchange, route, key), exchange.request.body, exchange.body_type)

    def _head(self, exchange: Exchange, route: Route, key: KeyRecord) -> bytes:
        scope = key.id if self._rules.cache_by_key else ""
        head = self._heads.get((route, scope))
        if head is None:
            target = route.target.replace("{id}", exchange.path_param)
            if route.group == "admin" and exchange.request.query:
                target += f"?{exchange.request.query}"
            head = engine_head(route.method, target, self._engine_key)
            if route.generates:
                if len(self._heads) >= _MAX_HEADS:  # keys come and go
                    self._heads.clear()
                self._heads[route, scope] = head = usage_head(head, self._usage_prefix, scope)
        if route.generates:
            exchange.usage_number = number = next(self._usage_numbers)
            head = b"%b%x\r\n" % (head, number)
        return head

    async def present(self, exchange: Exchange, route: Route, key: KeyRecord) -> tuple[int, HeaderLines, bytes]:
        """Handle the routes of models and properties, with the part of the engine's data that clients can see."""
        if route.group == "admin":
            await self._audit_admin_call(exchange, route, key)
        reservation = await self._limiter.reserve(key, 0)
        exchange.limit_lines = reservation.lines
        served = self._rules.served_models
        try:
            if route.kind == "models":
                models = await self._models.body()
                body = present_models(models, served, key.models, wanted=exchange.path_param)
            else:
                body = present_props(await self._fetch_props(exchange), served[0])
        finally:
            self._settlement.charge(reservation, 0)
        return 200, "Content-Type: application/json\r\n", body

    async def _fetch_props(self, exchange: Exchange) -> bytes:
        """Return the engine's properties. Waits while it loads: all of them are its own."""
        request = engine_request(engine_head("GET", "/props", self._engine_key), b"", b"")
        relay = await self._caller.call(exchange, request)
        if relay.head is None or relay.head.status != 200:
            raise engine_error(relay.head.status if relay.head is not None else 502, relay.body)
        return relay.body


class _KeepAlive:
    """Sends comments in a stream until the engine's first byte, so that proxies do not close it."""

    __slots__ = ("_exchange", "_interval", "_last")

    def __init__(self, exchange: Exchange, interval: float) -> None:
        self._exchange = exchange
        self._interval = interval
        self._last = exchange.arrived

    def check(self, now: float) -> None:
        """Write a comment if the interval has passed. The first one sends the status 200."""
        if self._exchange.first_byte == 0.0 and now - self._last >= self._interval:
            self._last = now
            self._exchange.write_event(KEEPALIVE_EVENT)
