"""Errors to bytes, in both shapes, and the engine's errors translated."""

from __future__ import annotations

import json
import re

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api import error_responses

LIMITED = GatewayError(
    "rate_limit_exceeded",
    "slow down",
    retry_after=7,
    headers=(("x-ratelimit-limit-requests", "5"),),
)


def test_openai_shape() -> None:
    assert json.loads(error_responses.error_body(LIMITED, "openai", "id")) == {
        "error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    }


def test_anthropic_shape() -> None:
    assert json.loads(error_responses.error_body(LIMITED, "anthropic", "id-1")) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "slow down", "code": "rate_limit_exceeded"},
        "request_id": "id-1",
    }


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "not_found_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (418, "invalid_request_error", "invalid_request_error"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (503, "server_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
    ],
)
def test_types_by_status(status: int, openai: str, anthropic: str) -> None:
    error = GatewayError("bad_request", "message", status=status)
    assert error_responses.error_object(error, "openai", "")["error"]["type"] == openai
    assert error_responses.error_object(error, "anthropic", "")["error"]["type"] == anthropic


def test_headers_of_errors() -> None:
    assert error_responses.error_headers(LIMITED) == [("x-ratelimit-limit-requests", "5"), ("Retry-After", "7")]
    assert error_responses.error_headers(GatewayError("invalid_api_key", "no")) == [("WWW-Authenticate", "Bearer")]


def test_an_error_as_an_event_is_one_event() -> None:
    error = GatewayError("engine_closed", "line one\nline two")
    openai = error_responses.error_event(error, "openai", "id")
    assert re.fullmatch(rb"data: \{[^\n]*\}\n\n", openai)
    anthropic = error_responses.error_event(error, "anthropic", "id")
    assert re.fullmatch(rb"event: error\ndata: \{[^\n]*\}\n\n", anthropic)
