"""The OpenAPI document says what the table of routes and the catalogue of errors say, and error answers fit it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from llama_gguf.api_errors import ERROR_CODES, ErrorCode, GatewayError
from llama_gguf.cli.generate.gateway_openapi import ROUTE_ERRORS, STREAMING_GROUPS, document, error_codes
from llama_gguf.gateway.api.cors import Cors
from llama_gguf.gateway.api.error_responses import error_headers, error_object
from llama_gguf.gateway.api.routes import ROUTES, Route

NAMES = [f"{route.method} {route.template}" for route in ROUTES]


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    return document("1.2.3")


def resolved(tree: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        found: Any = tree
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        value = found
    return value


def operation(tree: dict[str, Any], route: Route) -> dict[str, Any]:
    found: dict[str, Any] = tree["paths"][route.template][route.method.lower()]
    return found


def test_every_route_and_nothing_else(tree: dict[str, Any]) -> None:
    listed = {f"{method.upper()} {path}" for path, methods in tree["paths"].items() for method in methods}
    assert listed == set(NAMES)
    names = [operation(tree, route)["operationId"] for route in ROUTES]
    assert len(set(names)) == len(names)
    assert tree["info"]["version"] == "1.2.3"


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_security_body_and_media_types(tree: dict[str, Any], route: Route) -> None:
    found = operation(tree, route)
    schemes = tree["components"]["securitySchemes"]
    if route.kind == "metrics":
        assert {} in found["security"]
    elif route.scope is None:
        assert found["security"] == []
    else:
        assert found["security"] == [{name: [route.scope]} for name in schemes]
    assert ("requestBody" in found) == (route.json_body or route.form_body)
    assert ("parameters" in found) == ("{id}" in route.template)
    content = resolved(tree, found["responses"].get("200") or found["responses"]["202"]).get("content", {})
    assert ("text/event-stream" in content) == (route.generates and route.group in STREAMING_GROUPS)
    assert bool(content) == (route.kind not in ("ping", "live"))


def test_every_code_of_the_catalogue_has_its_place() -> None:
    placed = {code for _, codes in ROUTE_ERRORS for code in codes}
    # No operation has these: for paths and methods that are none, and one that is in logs only.
    elsewhere = {"not_found", "method_not_allowed", "upgrade_required", "client_stalled"}
    assert placed | elsewhere == {entry.code for entry in ERROR_CODES}
    assert not placed & elsewhere


def test_codes_by_kind_of_route() -> None:
    def codes(method: str, path: str) -> set[str]:
        (route,) = [route for route in ROUTES if (route.method, route.template) == (method, path)]
        return {entry.code for entry in error_codes(route)}

    assert codes("POST", "/v1/chat/completions") >= {"invalid_api_key", "queue_full", "context_length_exceeded"}
    assert not codes("POST", "/tokenize") & {"queue_full", "context_length_exceeded", "audit_unavailable"}
    assert codes("GET", "/v1/models/{id}") - codes("GET", "/v1/models") == {"model_not_found"}
    assert codes("GET", "/slots") >= {"insufficient_scope", "audit_unavailable"}
    assert codes("POST", "/reload") >= {"keys_unusable", "audit_unavailable"}
    assert not codes("GET", "/ping") & {"invalid_api_key", "internal_error", "model_loading"}


CASES = [(route, entry) for route in ROUTES for entry in error_codes(route)]


@pytest.mark.parametrize(("route", "entry"), CASES, ids=[f"{r.method} {r.template} {e.code}" for r, e in CASES])
def test_rendered_errors_fit_their_schema(tree: dict[str, Any], route: Route, entry: ErrorCode) -> None:
    response = resolved(tree, operation(tree, route)["responses"][str(entry.status)])
    schema = response["content"]["application/json"]["schema"] | {"components": tree["components"]}
    check = jsonschema.Draft202012Validator(schema)
    error = GatewayError(entry.code, entry.meaning)
    check.validate(error_object(error, route.dialect, "req-1"))
    unknown = GatewayError(entry.code, entry.meaning)
    unknown.code = "another_code"
    assert not check.is_valid(error_object(unknown, route.dialect, "req-1"))
    assert f"`{entry.code}`" in response["description"]
    assert {name for name, _ in error_headers(error)} <= set(response["headers"])


def test_headers_that_browsers_may_read_are_described(tree: dict[str, Any]) -> None:
    cors = dict(Cors(("*",), 600).headers(b"https://a.example"))
    exposed = set(cors["Access-Control-Expose-Headers"].split(", "))
    assert exposed | {"WWW-Authenticate"} == set(tree["components"]["headers"])
