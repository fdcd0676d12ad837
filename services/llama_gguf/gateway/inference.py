"""Handles inference requests: checks the body, applies limits and the queue, relays to the engine, settles.

Owns the order in which a request acquires a reservation and a slot of the engine, and releases them, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

from llama_gguf.api_errors import GatewayError
from llama_gguf.errors import KeysError
from llama_gguf.gateway.api.engine_views import present_models, present_props
from llama_gguf.gateway.api.multipart import read_form
from llama_gguf.gateway.api.routes import Route
from llama_gguf.gateway.backends.backend import ModelBackend
from llama_gguf.gateway.backends.registry import ModelBackends
from llama_gguf.gateway.exchange import Exchange
from llama_gguf.gateway.http1.deadlines import DeadlineChecker
from llama_gguf.gateway.http1.inline_task import continue_as_task
from llama_gguf.gateway.http1.message import HeaderLines
from llama_gguf.gateway.ratelimit.limiter import RateLimiter
from llama_gguf.gateway.relay.accounting import begin_part, end_part, record_complete_usage
from llama_gguf.gateway.relay.response_relay import ResponseRelay
from llama_gguf.gateway.relay.sse import KEEPALIVE_EVENT
from llama_gguf.gateway.request.changes import Changes, changed_lines
from llama_gguf.gateway.request.json_body import read_json
from llama_gguf.gateway.request.model_rules import apply_to_form, joined, rules_of_key
from llama_gguf.gateway.request.parts import join_parts, split_parts
from llama_gguf.gateway.request.reader import LARGE_BODY_BYTES, RequestContent, RequestReader, without_cache
from llama_gguf.gateway.request.template import check_tools_of_template
from llama_gguf.gateway.scheduling.admission import Admission
from llama_gguf.gateway.scheduling.fair_queue import Entry
from llama_gguf.gateway.tokens.counts import Tokens
from llama_gguf.gateway.tokens.estimate import estimate_chat_tokens, estimate_transcription_tokens
from llama_gguf.gateway.translate.by_route import TRANSLATED_GROUPS, find_translation
from llama_gguf.gateway.translate.translation import translate_body
from llama_gguf.gateway.upstream.errors import engine_error
from llama_gguf.gateway.upstream.request import engine_head, engine_request, usage_head
from llama_gguf.keys.record import KeyRecord
from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_MAX_HEADS = 4096

AuditCall = Callable[[str, str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RelayRules:
    """The settings for relayed requests."""

    keepalive_seconds: float
    cache_by_key: bool  # a prompt reuses only what its own key has sent


_Wanted = tuple[ModelBackend, int, RequestContent | None]
"""What a request is for: a model, the tokens it is estimated to cost, and its content if the model generates."""


class InferenceRoutes:
    """Handles the routes that the engine serves. Belongs to one event loop."""

    def __init__(
        self,
        rules: RelayRules,
        *,
        backends: ModelBackends,
        reader: RequestReader,
        has_many_keys: Callable[[], bool],
        limiter: RateLimiter,
        deadlines: DeadlineChecker,
        audit: AuditCall,
    ) -> None:
        self._rules = rules
        self._backends = backends
        self._reader = reader
        self._has_many_keys = has_many_keys
        self._limiter = limiter
        self._deadlines = deadlines
        self._audit = audit
        self._heads: dict[tuple[ModelBackend, Route, str], bytes] = {}  # constant for routes that generate, by scope

    def check_supported(self, route: Route) -> None:
        """Refuse what no model does before the body arrives. Raises GatewayError 501."""
        self._backends.check_supported(route)

    async def relay(  # noqa: C901, PLR0912 - the order is the point, and each function of its own costs a coroutine
        self, exchange: Exchange, route: Route, key: KeyRecord
    ) -> None:
        """Relay a request to the engine and the response to the client. Raises GatewayError; releases everything."""
        if route.dialect == "anthropic":
            exchange.add_anthropic_request_id()
        try:
            backend, cost, content = await self._check_body(exchange, route, key)
            if backend.refuses:
                backend.check_available()
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
                await self._relay_directly(exchange, route, key, backend)
            elif exchange.sequences > backend.admission.capacity and exchange.choices < exchange.sequences:
                if content is not None:
                    await self._isolate_cache(exchange, route, backend, content)
                await self._relay_parts(exchange, route, key, backend, cost)
            else:
                if route.queued:
                    on_queued = keep_alive.queued if keep_alive is not None else None
                    ticket = await backend.admission.acquire(key.id, cost, key.priority, exchange.sequences, on_queued)
                    exchange.admitted = True
                    exchange.queued_seconds = ticket.waited_seconds
                else:  # a place among those that need no slot
                    ticket = await backend.counting.acquire(key.id, len(exchange.request.body), key.priority)
                if content is not None and not backend.features.known_scopes:
                    await self._isolate_cache(exchange, route, backend, content)
                relay = await backend.caller.call(exchange, self._request_bytes(exchange, route, key, backend))
                self._finish(exchange, route, relay, cost)
        finally:
            if keep_alive is not None:
                self._deadlines.discard(keep_alive)
            used = None
            try:
                used = backend.settlement.settle(exchange, reservation, cost)
            finally:  # a slot that is lost stays lost
                if ticket is not None:
                    ticket.release(used)

    async def _charge_request(self, exchange: Exchange, key: KeyRecord) -> None:
        """Charge a request that is refused for its body: it costs as much as another. Raises GatewayError."""
        reservation = await self._limiter.reserve(key, 0)
        exchange.limit_lines = reservation.lines
        self._backends.first.settlement.charge(reservation, 0)

    async def _relay_directly(self, exchange: Exchange, route: Route, key: KeyRecord, backend: ModelBackend) -> None:
        """Relay an operator's call, which needs no slot: there are few, of which some take minutes."""
        backend.direct += 1
        try:
            relay = await backend.caller.call(exchange, self._request_bytes(exchange, route, key, backend))
            self._finish(exchange, route, relay, 0)
        finally:
            backend.direct -= 1
            backend.demand_changed()

    async def _relay_parts(
        self, exchange: Exchange, route: Route, key: KeyRecord, backend: ModelBackend, cost: int
    ) -> None:
        """Do the same for a request with more prompts than slots: a few at a time, each with its turn in the queue."""
        size = max(1, backend.admission.capacity // exchange.choices)
        fields: dict[str, Any] = orjson.loads(exchange.request.body)
        parts = split_parts(route.group, fields, size)
        part_cost = -(-cost // len(parts))
        whole = Tokens()
        bodies: list[bytes] = []
        head = self._head(exchange, route, key, backend)
        for part in parts:
            ticket = await backend.admission.acquire(key.id, part_cost, key.priority, size * exchange.choices)
            try:
                if not exchange.admitted:
                    exchange.admitted = True
                    exchange.queued_seconds = ticket.waited_seconds
                begin_part(exchange)
                relay = await backend.caller.call(exchange, engine_request(head, part, exchange.body_type))
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

    async def _check_body(self, exchange: Exchange, route: Route, key: KeyRecord) -> _Wanted:
        """Check the body and find the model that it is for."""
        raw = exchange.request.body
        if route.form_body:
            return self._check_form(exchange, route, key)
        if not route.json_body or route.group == "admin":
            backend, exchange.model = self._backends.choose(_model_of_query(exchange.request.query), None, route)
            if raw:
                read_json(raw)  # the engine's own form, from somebody who may do all with it
            return (backend, 0, None)
        admin = "admin" in key.scopes
        rules = rules_of_key(key)
        unnamed = self._backends.unnamed(key, route) if self._backends.several else ""
        if len(raw) < LARGE_BODY_BYTES:
            content = self._reader.read(route.fields_group, raw, admin=admin, key_rules=rules, unnamed=unnamed)
        else:  # what takes long must not keep the others waiting
            await continue_as_task()
            content = await asyncio.to_thread(
                self._reader.read, route.fields_group, raw, admin=admin, key_rules=rules, unnamed=unnamed
            )
        if content.data is not raw:
            exchange.request.body = content.data
        exchange.warning_lines = content.warning_lines
        exchange.changed_by_rules = content.changed_by_rules
        backend, exchange.model = self._backends.choose(content.model, key, route)
        if not route.generates:
            return (backend, 0, None)
        if content.choices > 1:
            backend.check_choices(content)
        if "tools" in content.fields:
            await self._check_tools(exchange, backend, content.fields)
        exchange.stream = content.fields.get("stream", False)
        if route.group in TRANSLATED_GROUPS:
            exchange.translation = find_translation(
                route.group, content.fields, exchange.model, exchange.request_id, backend.context
            )
        exchange.choices = content.choices
        exchange.sequences = content.choices * content.prompts
        cost = estimate_chat_tokens(route.group, content.data, content.fields, backend.context)
        return (backend, cost, content)

    async def _isolate_cache(
        self, exchange: Exchange, route: Route, backend: ModelBackend, content: RequestContent
    ) -> None:
        """Have an engine that cannot keep the prompts of keys apart reuse none."""
        if self._rules.cache_by_key and self._has_many_keys() and not await backend.features.cache_scopes():
            exchange.request.body = without_cache(route.fields_group, content)

    @staticmethod
    async def _check_tools(exchange: Exchange, backend: ModelBackend, fields: Mapping[str, Any]) -> None:
        """Refuse tools that the model's template cannot have, or tell of them. Raises GatewayError."""
        changes = Changes()
        check_tools_of_template(await backend.props.body(), fields, changes)
        exchange.warning_lines += changes.header_lines()

    def _check_form(self, exchange: Exchange, route: Route, key: KeyRecord) -> _Wanted:
        """Do the same for an upload, and replace its body with the form for the engine."""
        request = exchange.request
        form = read_form(request.body, request.headers.get(b"content-type", b""))
        backend, exchange.model = self._backends.choose(form.fields.get("model", ""), key, route)
        exchange.stream = form.stream
        rules = joined(rules_of_key(key), backend.variants.get(exchange.model, backend.reading).operator)
        if rules is not None and (changed := apply_to_form(form.fields, rules)):
            exchange.changed_by_rules = ",".join(changed)
            exchange.warning_lines = changed_lines(changed)
        exchange.body_type, request.body = form.encode()
        prompt = form.fields.get("prompt", "")
        cost = estimate_transcription_tokens(len(form.file), prompt, form.max_tokens, backend.context)
        return (backend, cost, None)

    def _request_bytes(self, exchange: Exchange, route: Route, key: KeyRecord, backend: ModelBackend) -> bytes:
        return engine_request(self._head(exchange, route, key, backend), exchange.request.body, exchange.body_type)

    def _head(self, exchange: Exchange, route: Route, key: KeyRecord, backend: ModelBackend) -> bytes:
        scope = key.id if self._rules.cache_by_key else ""
        head = self._heads.get((backend, route, scope))
        if head is None:
            target = route.target.replace("{id}", exchange.path_param)
            if route.group == "admin" and exchange.request.query:
                target += f"?{exchange.request.query}"
            head = engine_head(route.method, target, backend.engine_key)
            if route.generates:
                if len(self._heads) >= _MAX_HEADS:  # keys come and go
                    self._heads.clear()
                self._heads[backend, route, scope] = head = usage_head(head, backend.usage.id_prefix, scope)
        if route.generates:
            exchange.usage_number = number = next(backend.usage_numbers)
            head = b"%b%x\r\n" % (head, number)
        return head

    async def present(self, exchange: Exchange, route: Route, key: KeyRecord) -> tuple[int, HeaderLines, bytes]:
        """Handle the routes of models and properties, with the part of the engine's data that clients can see."""
        if route.group == "admin":
            await self._audit_admin_call(exchange, route, key)
        reservation = await self._limiter.reserve(key, 0)
        exchange.limit_lines = reservation.lines
        backend = self._backends.first
        try:
            if route.kind == "models":
                entries = await self._backends.entries(key.models)
                body = present_models(entries, wanted=exchange.path_param)
            else:
                backend, _ = self._backends.choose(_model_of_query(exchange.request.query), key, route)
                body = present_props(await self._fetch_props(exchange, backend, key), backend.name)
        finally:
            backend.settlement.charge(reservation, 0)
        return 200, "Content-Type: application/json\r\n", body

    @staticmethod
    async def _fetch_props(exchange: Exchange, backend: ModelBackend, key: KeyRecord) -> bytes:
        """Return the engine's properties. Waits while it loads: all of them are its own."""
        request = engine_request(engine_head("GET", "/props", backend.engine_key), b"", b"")
        ticket = await backend.counting.acquire(key.id, 1, key.priority)
        try:
            relay = await backend.caller.call(exchange, request)
        finally:
            ticket.release()
        if relay.head is None or relay.head.status != 200:
            raise engine_error(relay.head.status if relay.head is not None else 502, relay.body)
        return relay.body


def _model_of_query(query: str) -> str:
    """Return the model that a request without a body is about: `?model=NAME`."""
    return parse_qs(query).get("model", [""])[-1] if "model=" in query else ""


class _KeepAlive:
    """Sends comments in a stream until the engine's first byte, so that proxies do not close it.

    Of a request that waits they say how far it is.
    """

    __slots__ = ("_admission", "_entry", "_exchange", "_interval", "_last")

    def __init__(self, exchange: Exchange, interval: float) -> None:
        self._exchange = exchange
        self._interval = interval
        self._last = exchange.arrived
        self._admission: Admission | None = None
        self._entry: Entry[Any] | None = None

    def queued(self, admission: Admission, entry: Entry[Any]) -> None:
        """Note that the request waits in a queue."""
        self._admission, self._entry = admission, entry

    def check(self, now: float) -> None:
        """Write a comment if the interval has passed. The first one sends the status 200."""
        if self._exchange.first_byte == 0.0 and now - self._last >= self._interval:
            self._last = now
            self._exchange.write_event(self._comment())

    def _comment(self) -> bytes:
        if self._admission is None or self._entry is None or not self._entry.waiting:
            return KEEPALIVE_EVENT
        position, seconds = self._admission.outlook(self._entry)
        return b": queue-position=%d expected-wait=%d\n\n" % (position, seconds)
