"""Errors to bytes, in both shapes, and the engine's errors translated."""

from __future__ import annotations

import json
import re

import pytest

from llama_gguf.api_errors import ERROR_CODES, ErrorCode, GatewayError
from llama_gguf.gateway.api import error_responses
from llama_gguf.gateway.api.routes import Dialect

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
    found = error_responses.error_headers(GatewayError("invalid_api_key", "no"))
    assert found == [("WWW-Authenticate", "Bearer"), ("x-should-retry", "false")]


@pytest.mark.parametrize("known", ERROR_CODES, ids=lambda known: known.code)
def test_clients_are_told_not_to_repeat_what_a_repetition_cannot_better(known: ErrorCode) -> None:
    """The official clients repeat any 408, 409, 429 and 5xx twice."""
    told = ("x-should-retry", "false") in error_responses.error_headers(GatewayError(known.code, "no"))
    may_pass = {"request_timeout", "rate_limit_exceeded", "internal_error", "engine_error", "keys_unusable"}
    may_pass |= {"audit_unavailable", "engine_unreachable", "engine_closed", "engine_protocol", "engine_refused"}
    may_pass |= {"model_failed", "model_loading", "queue_full", "queue_timeout", "timeout", "client_stalled"}
    assert told is (known.code not in may_pass)


def test_the_counts_of_the_engine_are_in_the_error_of_either_dialect() -> None:
    error = GatewayError("context_length_exceeded", "no", details={"n_prompt_tokens": 9, "n_ctx": 5})
    dialects: tuple[Dialect, ...] = ("openai", "anthropic")
    for dialect in dialects:
        found = error_responses.error_object(error, dialect, "id")["error"]
        assert (found["n_prompt_tokens"], found["n_ctx"]) == (9, 5)


def test_an_error_as_an_event_is_one_event() -> None:
    error = GatewayError("engine_closed", "line one\nline two")
    openai = error_responses.error_event(error, "openai", "id")
    assert re.fullmatch(rb"data: \{[^\n]*\}\n\n", openai)
    anthropic = error_responses.error_event(error, "anthropic", "id")
    assert re.fullmatch(rb"event: error\ndata: \{[^\n]*\}\n\n", anthropic)
