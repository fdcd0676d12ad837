"""Serializes errors, in OpenAI's and in Anthropic's JSON shape; nothing else knows these shapes. Pure.

Every error response of the gateway goes through here, those of the HTTP parser and the engine included, so `code` is a
string everywhere.
"""

from __future__ import annotations

from typing import Any

import orjson

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api.routes import Dialect

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_object(error: GatewayError, dialect: Dialect, request_id: str) -> dict[str, Any]:
    """Return the JSON object of an error response."""
    if dialect == "anthropic":
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        body = {"type": kind, "message": error.message, "code": error.code, **error.details}
        return {"type": "error", "error": body, "request_id": request_id}
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
            **error.details,
        }
    }


def error_body(error: GatewayError, dialect: Dialect, request_id: str) -> bytes:
    """Return the body of an error response."""
    return orjson.dumps(error_object(error, dialect, request_id))


def error_headers(error: GatewayError) -> list[tuple[str, str]]:
    """Return the headers of an error response besides the common ones."""
    headers = list(error.headers)
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    if error.status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    if error.final:
        headers.append(("x-should-retry", "false"))  # the official clients honour it, on any status
    return headers


def error_event(error: GatewayError, dialect: Dialect, request_id: str) -> bytes:
    """Return an error as a server-sent event, for streams whose status 200 has been sent."""
    data = error_body(error, dialect, request_id)
    return (b"event: error\ndata: " if dialect == "anthropic" else b"data: ") + data + b"\n\n"
