"""The table of errors that clients get."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from llama_gguf import api_errors
from llama_gguf.api_errors import ERROR_CODES, ErrorCode, GatewayError

GATEWAY = Path(api_errors.__file__).parent / "gateway"


def literals() -> set[str]:
    """Return every text that stands in the gateway's code."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in GATEWAY.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def codes_made() -> set[str]:
    """Return the codes of every error that the gateway makes by a literal one."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in GATEWAY.rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "GatewayError"]
    return {str(code.value) for code in made if isinstance(code, ast.Constant)}


def test_every_code_the_gateway_makes_is_in_the_table_and_the_other_way_round() -> None:
    codes = {entry.code for entry in ERROR_CODES}
    assert len(codes) == len(ERROR_CODES)
    assert codes_made() <= codes
    assert codes <= literals()


@pytest.mark.parametrize("entry", ERROR_CODES, ids=lambda entry: entry.code)
def test_an_error_is_made_by_its_code_alone(entry: ErrorCode) -> None:
    error = GatewayError(entry.code, "why")
    assert (error.status, error.message, error.retry_after, error.headers) == (entry.status, "why", None, ())
    assert 400 <= error.status < 600
    assert error.type
    assert error.outcome not in ("ok", "client_gone")


def test_a_code_that_nobody_knows_is_a_defect() -> None:
    with pytest.raises(KeyError):
        GatewayError("no_such_code", "why")


@pytest.mark.parametrize(
    ("code", "type_", "outcome"),
    [
        ("bad_request", "invalid_request_error", "client_error"),
        ("invalid_api_key", "authentication_error", "rejected"),
        ("model_not_found", "not_found_error", "client_error"),
        ("rate_limit_exceeded", "rate_limit_error", "rejected"),
        ("insufficient_quota", "insufficient_quota", "rejected"),
        ("queue_full", "server_error", "rejected"),
        ("timeout", "server_error", "timeout"),
        ("engine_error", "server_error", "engine_error"),
        ("engine_failed", "server_error", "upstream_error"),
        ("audit_unavailable", "server_error", "internal_error"),
        ("keys_unusable", "server_error", "internal_error"),
    ],
)
def test_type_and_outcome(code: str, type_: str, outcome: str) -> None:
    error = GatewayError(code, "why")
    assert (error.type, error.outcome) == (type_, outcome)


@pytest.mark.parametrize(
    ("status", "type_", "outcome"),
    [(400, "exceed_context_size_error", "client_error"), (403, "", "rejected"), (501, "", "engine_error")],
)
def test_errors_of_the_engine_keep_status_and_type(status: int, type_: str, outcome: str) -> None:
    error = GatewayError("bad_request", "why", status=status, type=type_)
    assert (error.status, error.outcome) == (status, outcome)
    assert error.type == (type_ or {403: "permission_error", 501: "server_error"}[status])
