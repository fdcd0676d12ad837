"""schema/openapi.json is a valid OpenAPI document in which each server's answers are told apart."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from llama_gguf.api_errors import ERROR_CODES
from llama_gguf.cli.generate.openapi import health_responses, openapi
from llama_gguf.cli.generate.reference_gateway import errors_section, fields_section, metrics_section, routes_section
from llama_gguf.gateway.api.routes import ROUTES
from llama_gguf.gateway.request.fields import TABLES
from llama_gguf.gateway.telemetry.metric_definitions import SERIES
from llama_gguf.health.responses import respond
from llama_gguf.health.state import Status
from llama_gguf.settings.health_paths import DETAILS, LIVE, PING, READY, STARTUP
from llama_gguf.settings.platform import Platform
from llama_gguf.states import ServiceState

GATEWAY, HEALTH = "The gateway", "The health server"


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi())
    return found


def servers(tree: dict[str, Any], path: str) -> list[str]:
    operation = tree["paths"][path]["get"]
    return [server["description"] for server in operation.get("servers", tree["servers"])]


def test_valid_by_an_independent_validator(tree: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(tree).validate()
    broken = json.loads(json.dumps(tree))
    del broken["paths"]["/readyz"]["get"]["responses"]["200"]["description"]
    assert not OpenAPIV31SpecValidator(broken).is_valid()


def test_whose_path_it_is(tree: dict[str, Any]) -> None:
    assert servers(tree, "/v1/models") == [GATEWAY]
    assert servers(tree, READY) == servers(tree, STARTUP) == [HEALTH]
    for path in (PING, LIVE, DETAILS):
        assert servers(tree, path) == [GATEWAY, HEALTH]


def test_no_operation_of_the_health_server_wants_a_key(tree: dict[str, Any]) -> None:
    for path in (PING, LIVE, READY, STARTUP, DETAILS):
        assert tree["paths"][path]["get"]["security"] == []


@pytest.mark.parametrize("path", [PING, LIVE, READY, STARTUP, DETAILS])
def test_every_answer_of_the_health_server_is_there(tree: dict[str, Any], path: str) -> None:
    responses = tree["paths"][path]["get"]["responses"]
    for state in ServiceState:
        for platform in get_args(Platform):
            found = respond(path, PING, platform, Status(state, 0.0, was_ready=state not in ("starting", "failed")))
            response = responses[str(found.status)]
            assert state in response["description"].partition("Health server: ")[2]
            if found.body:
                assert found.content_type.partition(";")[0] in response["content"]


def test_platforms_that_differ_are_named() -> None:
    assert "starting" in health_responses(PING)[204]
    assert "starting on kubernetes" in health_responses(PING)[503]
    assert not [name for by_state in health_responses(READY).values() for name in by_state if " on " in name]


def test_sections_of_the_reference() -> None:
    for route in ROUTES:
        assert f"| {route.method} | `{route.template}` |" in routes_section()
    for entry in ERROR_CODES:
        assert f"| `{entry.code}` | {entry.status} |" in errors_section()
    for series in SERIES:
        assert f"| `{series.name}` | {series.kind} |" in metrics_section()


def test_every_field_of_a_request_is_in_the_reference() -> None:
    section = fields_section()
    assert "`output_config.format` (messages)" in section
    assert "`guided_json` (chat, completions, responses, infill, messages)" in section
    for fields in TABLES.values():
        for name in fields:
            assert f"`{name}`" in section
    assert "| `temperature` | chat, completions, responses, messages, infill | a number, 0 to 1000 |" in section
    assert "scope `admin`" in section
