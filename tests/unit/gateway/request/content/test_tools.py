"""A named tool is the only one offered, and required; what cannot be offered is told."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.content.tools import check_chat_tools, check_messages_tools, check_responses_tools

from ..conftest import Refused

Body = dict[str, Any]


def chat(*names: str, **more: object) -> Body:
    return {"tools": [{"type": "function", "function": {"name": name, "parameters": {}}} for name in names], **more}


def flat(*names: str, **more: object) -> Body:
    return {"tools": [{"type": "function", "name": name, "parameters": {}} for name in names], **more}


def anthropic(*names: str, **more: object) -> Body:
    return {"tools": [{"name": name, "input_schema": {"type": "object"}} for name in names], **more}


def chat_names(body: Body) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def names(body: Body) -> list[str]:
    return [tool["name"] for tool in body.get("tools", [])]


def test_a_named_tool_of_chat() -> None:
    body = chat("a", "b", "c", tool_choice={"type": "function", "function": {"name": "b"}})
    changes = Changes()
    check_chat_tools(body, changes)
    assert (chat_names(body), body["tool_choice"], changes.changed) == (["b"], "required", True)


def test_a_named_tool_of_responses() -> None:
    body = flat("a", "b", tool_choice={"type": "function", "name": "b"})
    check_responses_tools(body, Changes())
    assert (names(body), body["tool_choice"]) == (["b"], "required")


def test_a_named_tool_of_messages() -> None:
    body = anthropic("a", "b", tool_choice={"type": "tool", "name": "b", "disable_parallel_tool_use": True})
    changes = Changes()
    check_messages_tools(body, changes)
    assert (names(body), body["tool_choice"]) == (["b"], {"type": "any"})
    assert changes.warnings == ["tool_choice.disable_parallel_tool_use is not enforced"]


@pytest.mark.parametrize(("mode", "left"), [("auto", "auto"), ("required", "required")])
def test_allowed_tools(mode: str, left: str) -> None:
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "c"}}]}
    body = chat("a", "b", "c", tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    check_chat_tools(body, Changes())
    assert (chat_names(body), body["tool_choice"]) == (["c"], left)
    choice = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "c"}]}
    body = flat("a", "c", tool_choice=choice)
    check_responses_tools(body, Changes())
    assert (names(body), body["tool_choice"]) == (["c"], left)


@pytest.mark.parametrize("choice", [None, "auto", "none", "required"])
def test_what_the_engine_knows_stays(choice: object) -> None:
    body = chat("a", "b", tool_choice=choice)
    changes = Changes()
    check_chat_tools(body, changes)
    assert (chat_names(body), body["tool_choice"], changes.changed) == (["a", "b"], choice, False)


def test_no_tool_of_messages() -> None:
    """The engine would take it for auto."""
    body = anthropic("a", tool_choice={"type": "none"})
    check_messages_tools(body, Changes())
    assert body == {}


def test_tools_that_nobody_here_could_run_are_left_out_and_told() -> None:
    body = anthropic("a")
    body["tools"].append({"type": "web_search_20250305", "name": "web_search", "max_uses": 5})
    changes = Changes()
    check_messages_tools(body, changes)
    assert names(body) == ["a"]
    assert "web_search_20250305" in changes.warnings[0]
    body = {"tools": [{"type": "web_search"}], "tool_choice": "auto"}
    changes = Changes()
    check_responses_tools(body, changes)
    assert "tools" not in body
    assert "web_search" in changes.warnings[0]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (chat("a", tool_choice={"type": "function", "function": {"name": "x"}}), "tool_choice"),
        (chat("a", tool_choice={"type": "function", "function": {"name": ["a"]}}), "tool_choice"),
        (chat("a", tool_choice={"type": "function"}), "tool_choice"),
        (chat("a", tool_choice="any"), "tool_choice"),
        (chat("a", tool_choice=5), "tool_choice"),
        (chat("a", tool_choice={"type": "allowed_tools", "allowed_tools": {"tools": []}}), "tool_choice"),
        (chat("a", tool_choice={"type": "allowed_tools", "allowed_tools": {"tools": 5}}), "tool_choice.tools"),
        (chat(tool_choice="required"), "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": "x"}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": " "}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "é" * 100_000}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": "y"}}]}, "tools[0].function.strict"),
        ({"functions": [{"name": "a"}]}, "functions"),
    ],
)
def test_refused_in_chat(body: Body, path: str, refused: Refused) -> None:
    assert refused(lambda: check_chat_tools(body, Changes())) == path


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (flat("a", tool_choice={"type": "web_search"}), "tool_choice.type"),
        (flat("a", tool_choice={"type": "function", "name": "b"}), "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": 5}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name"),
    ],
)
def test_refused_in_responses(body: Body, path: str, refused: Refused) -> None:
    assert refused(lambda: check_responses_tools(body, Changes())) == path


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (anthropic("a", tool_choice={"type": "tool", "name": "b"}), "tool_choice"),
        (anthropic("a", tool_choice={"type": "tool"}), "tool_choice"),
        (anthropic("a", tool_choice="auto"), "tool_choice.type"),
        (anthropic("a", tool_choice={"type": 5}), "tool_choice.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [{"name": "a", "input_schema": []}]}, "tools[0].input_schema"),
    ],
)
def test_refused_in_messages(body: Body, path: str, refused: Refused) -> None:
    assert refused(lambda: check_messages_tools(body, Changes())) == path


def test_null_is_left_out() -> None:
    body: Body = {"tools": [{"type": "function", "function": {"name": "a", "parameters": None, "strict": None}}]}
    changes = Changes()
    check_chat_tools(body, changes)
    assert body["tools"][0]["function"] == {"name": "a"}
    assert changes.changed
