"""The engine's errors as clients get them."""

from __future__ import annotations

import json

import pytest

from llama_gguf.gateway.upstream.errors import engine_error, is_loading


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "bad_request"),
        (400, "exceed_context_size_error", "context_length_exceeded"),
        (501, "not_supported_error", "not_supported"),
        (500, "server_error", "engine_error"),
        (404, "not_found_error", "not_found"),
        (500, "something_new", "engine_error"),
        (503, "unavailable_error", "engine_error"),
    ],
)
def test_errors_of_the_engine(status: int, kind: str, code: str) -> None:
    body = json.dumps({"error": {"code": status, "message": "why", "type": kind}}).encode()
    error = engine_error(status, body)
    assert (error.status, error.code, error.message) == (status, code, "why")


def test_an_engine_that_loads_is_503_with_retry_after() -> None:
    body = json.dumps({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}).encode()
    error = engine_error(503, body)
    assert (error.status, error.code) == (503, "model_loading")
    assert error.retry_after
    assert is_loading(503, body)
    assert not is_loading(200, body)
    assert not is_loading(503, body.replace(b"Loading model", b"no slot available"))
    assert not is_loading(503, b"not json")


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'"text"', b'{"error": 5}', b"{}", b'{"error": {}}'])
def test_an_error_of_the_engine_without_a_reason(body: bytes) -> None:
    error = engine_error(500, body)
    assert (error.status, error.code) == (500, "engine_error")
    assert error.message


def test_a_mistake_of_the_client_is_no_500_and_names_the_parameter() -> None:
    body = json.dumps({"error": {"code": 500, "message": "'messages' is required", "type": "server_error"}}).encode()
    error = engine_error(500, body)
    assert (error.status, error.code, error.param, error.final) == (400, "bad_request", "messages", True)
    assert error.type == "invalid_request_error"


def test_what_the_engine_was_not_started_for_is_no_advice_about_its_arguments() -> None:
    message = "This server does not support embeddings. Start it with `--embeddings`"
    error = engine_error(501, json.dumps({"error": {"message": message, "type": "not_supported_error"}}).encode())
    assert (error.status, error.code, error.type, error.final) == (501, "not_supported", "not_supported_error", True)
    assert "engine.task" in error.message
    assert "--embeddings" not in error.message


def test_the_counts_of_a_context_that_is_exceeded_are_kept() -> None:
    inner = {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 5}
    error = engine_error(400, json.dumps({"error": inner}).encode())
    assert (error.code, error.details) == ("context_length_exceeded", {"n_prompt_tokens": 9, "n_ctx": 5})
    message = "input (12 tokens) is too large to process. increase the physical batch size (current batch size: 4)"
    error = engine_error(500, json.dumps({"error": {"message": message, "type": "server_error"}}).encode())
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert error.details == {"n_prompt_tokens": 12, "n_ctx": 4}


def test_a_clients_text_within_a_known_error_is_not_taken_for_counts() -> None:
    inner = {"message": "m", "type": "exceed_context_size_error", "n_prompt_tokens": "<script>", "n_ctx": True}
    assert engine_error(400, json.dumps({"error": inner}).encode()).details == {}


def test_internals_of_the_engine_stay_inside() -> None:
    body = json.dumps({"error": {"message": "std::bad_alloc at 0x7f8a846ffa60", "type": "server_error"}}).encode()
    error = engine_error(500, body)
    assert (error.status, error.code) == (500, "engine_error")
    assert "std" not in error.message
    assert not error.final


def test_an_error_that_is_only_a_text() -> None:
    assert engine_error(400, b'{"error": "no such thing"}').message == "no such thing"


def test_paths_of_files_stay_inside() -> None:
    body = json.dumps({"error": {"message": "cannot open /models/my secret/tiny.gguf now", "type": "x"}}).encode()
    assert "/models" not in engine_error(400, body).message


def test_refused_by_the_engine_is_not_the_clients_401() -> None:
    assert engine_error(401, b"").status == 502
