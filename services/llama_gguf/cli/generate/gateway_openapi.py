"""The gateway's part of schema/openapi.json, generated from the tables of routes and errors. Pure.

llama-server documents its own request and response bodies; this describes what the gateway decides: which paths
exist, the scope and media types of each, and every error code with its JSON shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama_gguf.api_errors import ERROR_CODES, ErrorCode, GatewayError
from llama_gguf.gateway.api.routes import ROUTES, Route, RouteKind
from llama_gguf.settings.sections.gateway import Gateway

Object = dict[str, Any]

STREAMING_GROUPS = frozenset({"chat", "completions", "responses", "messages", "infill", "audio"})
"""Groups whose generating routes respond with an event stream if `stream` is true."""

_HTTP = (
    *("bad_request", "request_timeout", "payload_too_large", "uri_too_long", "unsupported_encoding"),
    *("expectation_failed", "header_fields_too_large", "http_version_not_supported"),
)
_ENGINE = (
    *("rate_limit_exceeded", "insufficient_quota", "internal_error", "engine_error", "engine_unreachable"),
    *(
        "engine_closed",
        "engine_protocol",
        "engine_refused",
        "engine_failed",
        "model_failed",
        "model_loading",
        "timeout",
    ),
)
_ENGINE_VIEWS = ("models", "props")
_USES_ENGINE = ("relay", *_ENGINE_VIEWS)
_MODEL_CONTROL: tuple[RouteKind, ...] = ("residency", "load", "unload", "pin", "unpin")

_TOLD = ("Warning", "X-Changed-Parameters")

_UPLOAD: Object = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary"},
        **{name: {"type": "string"} for name in ("model", "prompt", "language")},
        "response_format": {"const": "json"},
        "temperature": {"type": "number"},
        "max_tokens": {"type": "integer", "minimum": 0},
        "stream": {"type": "boolean"},
    },
    "required": ["file"],
}

ROUTE_ERRORS: tuple[tuple[Callable[[Route], bool], tuple[str, ...]], ...] = (
    (lambda _: True, _HTTP),
    (lambda route: route.scope is not None, ("invalid_api_key", "too_many_invalid_keys", "insufficient_scope")),
    (lambda route: route.kind in _USES_ENGINE, _ENGINE),
    (lambda route: route.kind == "relay", ("not_supported",)),
    (lambda route: route.kind == "relay" and route.json_body, ("media_not_allowed", "model_not_found")),
    (lambda route: route.form_body or (route.kind == "models" and "{id}" in route.template), ("model_not_found",)),
    (lambda route: route.generates, ("context_length_exceeded",)),
    (lambda route: route.queued, ("queue_full", "queue_timeout")),
    (lambda route: route.group in ("admin", "props"), ("audit_unavailable",)),
    (
        lambda route: route.kind == "metrics",
        ("invalid_api_key", "too_many_invalid_keys", "insufficient_scope", "internal_error"),
    ),
    (
        lambda route: route.kind in _MODEL_CONTROL,
        ("internal_error", "not_supported", "model_not_found", "model_failed", "audit_unavailable"),
    ),
    (lambda route: route.kind == "reload", ("internal_error", "keys_unusable", "audit_unavailable")),
)
"""Which error codes a route can respond with."""


def document(version: str) -> Object:
    """Return the OpenAPI 3.1 document of the gateway."""
    paths: dict[str, Object] = {}
    responses: dict[str, Object] = {}
    for route in ROUTES:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, responses)
    info = {
        "title": "llama-gguf-inference",
        "version": version,
        "license": {"name": "MIT", "identifier": "MIT"},
        "description": (
            "Every route of the gateway; `gateway.routes` in the configuration selects which groups are enabled. Paths "
            "not listed return 404 `not_found`, other methods 405 `method_not_allowed`; HEAD returns the headers of "
            "GET. Request and response bodies of the engine's routes are as llama-server documents them."
        ),
    }
    components = {
        "securitySchemes": _security_schemes(),
        "schemas": _schemas(),
        "headers": _headers(),
        "responses": dict(sorted(responses.items())),
    }
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [server("The gateway", Gateway.model_fields["port"].default)],
        "paths": paths,
        "components": components,
    }


def server(description: str, port: int) -> Object:
    """Return a Server Object with variables for host and port."""
    variables = {"host": {"default": "localhost"}, "port": {"default": str(port)}}
    return {"url": "http://{host}:{port}", "description": description, "variables": variables}


def error_codes(route: Route) -> list[ErrorCode]:
    """Return the errors that a route can respond with, in the order of the table."""
    possible = {code for applies, codes in ROUTE_ERRORS if applies(route) for code in codes}
    return [entry for entry in ERROR_CODES if entry.code in possible]


def _operation(route: Route, shared: dict[str, Object]) -> Object:
    """Return one operation; the responses it refers to are added to `shared`."""
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{route.template}").strip("_")
    operation: Object = {
        "operationId": name,
        "summary": route.summary,
        "tags": [route.group],
        "security": _security(route),
    }
    if "{id}" in route.template:
        schema = {"type": "string"}
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": schema}]
    if route.json_body:
        content = {"application/json": {"schema": {"type": "object"}}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.form_body:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}
    accepted = route.kind in _MODEL_CONTROL and route.method == "POST"  # it goes on after the response
    operation["responses"] = {"202" if accepted else "200": _success(route, shared)}
    by_status: dict[int, list[ErrorCode]] = {}
    for entry in error_codes(route):
        by_status.setdefault(entry.status, []).append(entry)
    for status, entries in sorted(by_status.items()):
        key = ".".join([route.dialect, str(status), *(entry.code for entry in entries)])
        shared.setdefault(key, _failure(route, status, entries))
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/{key}"}
    return operation


def _security(route: Route) -> list[Object]:
    if route.kind == "metrics":  # metrics.require_key decides
        return [{}, {"bearer": ["metrics"]}, {"apiKey": ["metrics"]}]
    if route.scope is None:
        return []
    return [{"bearer": [route.scope]}, {"apiKey": [route.scope]}]


def _success(route: Route, shared: dict[str, Object]) -> Object:
    names = _ids(route)
    if route.kind in _USES_ENGINE:
        names += [name for name in _headers() if name.startswith("X-RateLimit-") or name in _TOLD]
    response: Object = {"description": "Success.", "headers": _refer(names)}
    content = _media(route)
    if content:
        response["content"] = content
    if route.kind not in _USES_ENGINE:
        return response
    key = ".".join(
        [
            "ok",
            *(["anthropic"] if route.dialect == "anthropic" else []),
            *(kind.replace("/", "-") for kind in content),
            *(["object"] if route.kind in _ENGINE_VIEWS else []),
        ]
    )
    shared[key] = response
    return {"$ref": f"#/components/responses/{key}"}


def _ids(route: Route) -> list[str]:
    """Return the headers that carry the request id."""
    return ["X-Request-Id", *(["Request-Id"] if route.dialect == "anthropic" else [])]


def _media(route: Route) -> Object:
    """Return the content of a successful response; empty if it has no body."""
    anything: Object = {}
    json_object = {"schema": {"type": "object"}}
    text = {"schema": {"type": "string"}}
    if route.kind == "relay" and route.target == "/metrics":
        return {"text/plain": text}
    if route.kind == "relay":
        if route.generates and route.group in STREAMING_GROUPS:
            return {"application/json": json_object, "text/event-stream": text}
        return {"application/json": anything}  # an array on some routes
    counted = {"status": {"const": "ok"}, "keys_loaded": {"type": "integer", "minimum": 0}}
    by_kind: dict[RouteKind, Object] = {
        "models": {"application/json": json_object},
        "props": {"application/json": json_object},
        "health": {"application/json": json_object},
        "metrics": {"text/plain": text, "application/openmetrics-text": text, "application/json": json_object},
        **{kind: {"application/json": json_object} for kind in _MODEL_CONTROL},
        "reload": {"application/json": {"schema": _record(counted)}},
    }
    return by_kind.get(route.kind, {})


def _failure(route: Route, status: int, entries: Iterable[ErrorCode]) -> Object:
    """Return the response for all errors of one status."""
    entries = list(entries)
    codes = [entry.code for entry in entries]
    schema = _shape("AnthropicError" if route.dialect == "anthropic" else "Error", codes)
    names = [*_ids(route), *(["WWW-Authenticate"] if status == 401 else [])]
    names += ["Retry-After"] if any("Retry-After" in entry.remedy for entry in entries) else []
    names += ["X-Queue-Position"] if any(entry.code.startswith("queue_") for entry in entries) else []
    names += ["x-should-retry"] if any(GatewayError(entry.code, "").final for entry in entries) else []
    return {
        "description": "\n".join(f"`{entry.code}`: {entry.meaning} {entry.remedy}" for entry in entries),
        "headers": _refer(names),
        "content": {"application/json": {"schema": schema}},
    }


def _shape(name: str, codes: list[str]) -> Object:
    code = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    return {"allOf": [{"$ref": f"#/components/schemas/{name}"}, code]}


def _refer(names: Iterable[str]) -> Object:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _security_schemes() -> Mapping[str, Object]:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": (
                "An API key, with or without the word Bearer. `auth.extra_header` can name one more header for it. "
                "With `auth.enabled: false` no key is required, and admin routes reject every request."
            ),
        },
        "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
    }


def _schemas() -> Mapping[str, Object]:
    text: Object = {"type": "string"}
    error: Object = {"message": text, "type": text, "param": {"type": ["string", "null"]}, "code": text}
    anthropic: Object = {"type": text, "message": text, "code": text}
    return {
        "Error": _record({"error": _record(error)}),
        "AnthropicError": _record({"type": {"const": "error"}, "error": _record(anthropic), "request_id": text}),
    }


def _record(properties: Object) -> Object:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _headers() -> Mapping[str, Object]:
    whole: Object = {"type": "integer", "minimum": 0}
    text: Object = {"type": "string"}
    headers = {
        "X-Request-Id": ("The request id, as in the logs: the client's own, or a generated one.", text),
        "Request-Id": ("The same, as Anthropic's clients expect it.", text),
        "Retry-After": ("Seconds to wait before a retry.", whole),
        "x-should-retry": ("`false`: the same request gets the same response again.", text),
        "X-Changed-Parameters": ("Parameters that rules of the model have set, bounded or left out.", text),
        "X-Queue-Position": ("Where in the queue the request would be now.", whole),
        "Warning": ('What of the request was left out or changed, as in `199 llama-gguf "..."`.', text),
        "WWW-Authenticate": ("`Bearer`", text),
    }
    for what in ("Requests", "Tokens"):
        unit = what.lower()
        headers[f"X-RateLimit-Limit-{what}"] = (f"The key's {unit} per minute, if they are limited.", whole)
        headers[f"X-RateLimit-Remaining-{what}"] = (f"The key's remaining {unit}.", whole)
        headers[f"X-RateLimit-Reset-{what}"] = (f"Time until the key's {unit} are fully available, as in `94s`.", text)
    return {name: {"description": meaning, "schema": schema} for name, (meaning, schema) in headers.items()}
