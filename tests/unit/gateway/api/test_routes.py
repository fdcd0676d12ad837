"""Which paths exist, and that nothing else does."""

from __future__ import annotations

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api.routes import ROUTES, RouteTable
from llama_gguf.settings.sections.gateway import Gateway

DEFAULT = Gateway().routes


def table(*groups: str, need_key: bool = False, metrics: bool = True) -> RouteTable:
    return RouteTable(groups or DEFAULT, metrics_need_key=need_key, metrics_enabled=metrics)


def refusal(method: str, path: str, found: RouteTable | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        (found or table()).find(method, path)
    return caught.value


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1/chat%2Fcompletions",
        "/V1/chat/completions",
        "/v1/chat/completions/control",
        "/v1/stream",
        "/v1/streams/lookup",
        "/tools",
        "/cors-proxy",
        "/slots/{id}",
        "/slots/x",
        "/slots/../props",
        "/v1/models/",
        "/models/sse",
        "/v1/audio/speech",
    ],
)
def test_what_is_not_in_the_table_does_not_exist(path: str) -> None:
    for method in ("GET", "POST"):
        assert (refusal(method, path).status, refusal(method, path).code) == (404, "not_found")


def test_a_wrong_method_is_405_and_names_the_right_ones() -> None:
    error = refusal("GET", "/v1/chat/completions")
    assert (error.status, error.code) == (405, "method_not_allowed")
    assert error.headers == (("Allow", "OPTIONS, POST"),)
    assert refusal("DELETE", "/v1/models").headers == (("Allow", "GET, HEAD, OPTIONS"),)


def test_every_route_of_the_table_is_found_when_its_group_is_open() -> None:
    groups = {route.group for route in ROUTES}
    everything = table(*groups)
    for route in ROUTES:
        found, variable = everything.find(route.method, route.template.replace("{id}", "7"))
        assert (found.template, found.method, variable) == (
            route.template,
            route.method,
            "7" if "{id}" in route.template else "",
        )


def test_closed_groups_do_not_exist() -> None:
    closed = table("chat")
    assert closed.find("POST", "/v1/chat/completions")[0].group == "chat"
    for path in ("/v1/embeddings", "/v1/messages", "/infill", "/tokenize"):
        assert refusal("POST", path, closed).status == 404


def test_props_are_for_admins_unless_they_are_exposed() -> None:
    assert table().find("GET", "/props")[0].scope == "admin"
    assert table("props").find("GET", "/props")[0].scope == "inference"
    assert table("props").find("POST", "/props")[0].scope == "admin"


@pytest.mark.parametrize("path", ["/slots", "/slots/3", "/lora-adapters", "/engine/metrics", "/models/load", "/reload"])
def test_what_touches_other_people_is_for_admins(path: str) -> None:
    methods = [method for method in table().methods(path) if method in ("GET", "POST")]
    assert methods
    for method in methods:
        assert table().find(method, path)[0].scope == "admin"


def test_metrics_can_want_a_key_or_be_off() -> None:
    assert table().find("GET", "/metrics")[0].scope is None
    assert table(need_key=True).find("GET", "/metrics")[0].scope == "metrics"
    assert refusal("GET", "/metrics", table(metrics=False)).status == 404


def test_head_is_taken_for_get() -> None:
    assert table().find("HEAD", "/health")[0].kind == "health"
    assert refusal("HEAD", "/v1/chat/completions").status == 405


def test_methods_of_a_path_for_preflights() -> None:
    assert table().methods("/v1/chat/completions") == ["POST"]
    assert table().methods("/nope") == []
