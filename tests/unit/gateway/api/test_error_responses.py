"""Errors to bytes, in both shapes, and the engine's errors translated."""

from __future__ import annotations

import json
import re

import pytest

from llama_gguf.errors import Extra, GatewayError
from llama_gguf.gateway.api import error_responses

LIMITED = GatewayError(
    429,
    "rate_limit_exceeded",
    "slow down",
    type="rate_limit_error",
    extra=Extra(retry_after=7, headers=(("x-ratelimit-limit-requests", "5"),)),
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
    error = GatewayError(status, "code", "message")
    assert error_responses.error_object(error, "openai", "")["error"]["type"] == openai
    assert error_responses.error_object(error, "anthropic", "")["error"]["type"] == anthropic


def test_headers_of_errors() -> None:
    assert error_responses.error_headers(LIMITED) == [("x-ratelimit-limit-requests", "5"), ("Retry-After", "7")]
    assert error_responses.error_headers(GatewayError(401, "invalid_api_key", "no")) == [("WWW-Authenticate", "Bearer")]


def test_an_error_as_an_event_is_one_event() -> None:
    error = GatewayError(502, "engine_closed", "line one\nline two")
    openai = error_responses.error_event(error, "openai", "id")
    assert re.fullmatch(rb"data: \{[^\n]*\}\n\n", openai)
    anthropic = error_responses.error_event(error, "anthropic", "id")
    assert re.fullmatch(rb"event: error\ndata: \{[^\n]*\}\n\n", anthropic)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "bad_request"),
        (400, "exceed_context_size_error", "context_length_exceeded"),
        (501, "not_supported_error", "not_supported"),
        (500, "server_error", "engine_error"),
        (404, "not_found_error", "not_found"),
        (500, "something_new", "engine_error"),
    ],
)
def test_errors_of_the_engine(status: int, kind: str, code: str) -> None:
    body = json.dumps({"error": {"code": status, "message": "why", "type": kind}}).encode()
    error = error_responses.engine_error(status, body)
    assert (error.status, error.code, error.message) == (status, code, "why")


def test_an_engine_that_loads_is_503_with_retry_after() -> None:
    body = json.dumps({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}).encode()
    error = error_responses.engine_error(503, body)
    assert (error.status, error.code) == (503, "model_loading")
    assert error.extra.retry_after


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'"text"', b'{"error": 5}', b"{}", b'{"error": {}}'])
def test_an_error_of_the_engine_without_a_reason(body: bytes) -> None:
    error = error_responses.engine_error(500, body)
    assert (error.status, error.code) == (500, "engine_error")
    assert error.message


def test_an_error_that_is_only_a_text() -> None:
    assert error_responses.engine_error(400, b'{"error": "no such thing"}').message == "no such thing"


def test_paths_of_files_stay_inside() -> None:
    body = json.dumps({"error": {"message": "cannot open /models/my secret/tiny.gguf now", "type": "x"}}).encode()
    assert "/models" not in error_responses.engine_error(400, body).message


def test_refused_by_the_engine_is_not_the_clients_401() -> None:
    assert error_responses.engine_error(401, b"").status == 502
