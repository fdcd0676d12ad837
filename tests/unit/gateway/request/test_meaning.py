"""Each route's request is checked by what its route means."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.constraints.schemas import SchemaLimits
from llama_gguf.gateway.request.content.media import MediaRules
from llama_gguf.gateway.request.meaning import MeaningRules, check_meaning

from .conftest import Refused

RULES = MeaningRules(
    MediaRules(supported=False, allow_remote=False, max_items=4), SchemaLimits(100, 16), "refuse", 3, 4, 100
)
USER = {"role": "user", "content": "hi"}
CHAT = {"messages": [USER]}
NUMBER = {"type": "object", "properties": {"a": {"type": "number", "minimum": 1}}}


# Sent to /v1/responses, this once ended llama-server: its converter follows such a reference without end.
CIRCLE = {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}}
STRICT = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": NUMBER}}


def check(group: str, body: dict[str, Any]) -> Changes:
    changes = Changes()
    check_meaning(group, body, RULES, changes)
    return changes


@pytest.mark.parametrize(
    ("group", "body"),
    [
        ("chat", {"model": "m", **CHAT}),
        ("chat", {**CHAT, "stop": ["a"], "response_format": {"type": "text"}, "temperature": 0}),
        ("chat", {**CHAT, "response_format": {"type": "json_object"}, "temperature": 0}),
        ("messages", {**CHAT, "max_tokens": 5, "stop_sequences": ["x"]}),
        ("responses", {"input": "hi", "text": {"format": {"type": "text"}}}),
        ("completions", {"prompt": "a", "stop": "x"}),
        ("completions", {"prompt": [[1, 2], "b", {"prompt_string": "c"}]}),
        ("infill", {"input_prefix": "a", "input_suffix": "b"}),
        ("embeddings", {"input": ["a"]}),
        ("rerank", {"query": "a", "documents": ["b"]}),
        ("tokenize", {"content": "a"}),
    ],
)
def test_plain_requests_pass_unchanged(group: str, body: dict[str, Any]) -> None:
    changes = check(group, body)
    assert (changes.changed, changes.warnings) == (False, [])


def tool(**more: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": NUMBER, **more}}


@pytest.mark.parametrize(
    ("group", "body", "path"),
    [
        ("chat", {}, "messages"),
        ("chat", {**CHAT, "x": 1, "tools": [tool(strict=True)]}, "tools[0].function.parameters.properties.a.minimum"),
        ("chat", {**CHAT, "x": 1, "tools": [tool()] * 4}, "tools"),
        ("chat", {**CHAT, "x": 1, "tool_choice": "required"}, "tool_choice"),
        ("chat", {**CHAT, "x": 1, "stop": [5]}, "stop[0]"),
        ("chat", {**CHAT, "x": 1, "response_format": "x"}, "response_format"),
        ("chat", {**CHAT, "x": 1, "response_format": {"type": "x"}}, "response_format.type"),
        ("chat", {**CHAT, "x": 1, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            "chat",
            {**CHAT, "x": 1, "response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        (
            "chat",
            {
                **CHAT,
                "x": 1,
                "response_format": {"type": "json_schema", "json_schema": {"strict": True, "schema": NUMBER}},
            },
            "response_format.json_schema.schema.properties.a.minimum",
        ),
        ("messages", {"max_tokens": 5}, "messages"),
        ("messages", {**CHAT, "stop_sequences": 5}, "stop_sequences"),
        ("messages", {**CHAT, "tools": [{"name": "a", "input_schema": {"anyOf": 5}}]}, "tools[0].input_schema.anyOf"),
        ("responses", {}, "input"),
        ("responses", {"input": "a", "text": {"format": {"type": "x"}}}, "text.format.type"),
        ("responses", {"input": "a", "response_format": 5}, "response_format"),
        ("responses", {"input": "a", "json_schema": CIRCLE}, "json_schema.allOf[0].$ref"),
        ("responses", {"input": "a", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ("completions", {"prompt": "a", "stop": 5}, "stop"),
        ("completions", {"prompt": {"prompt_string": "a", "multimodal_data": "x"}}, "prompt.multimodal_data"),
        ("completions", {"prompt": {"prompt_string": "a", "multimodal_data": ["aGk="]}}, "prompt.multimodal_data[0]"),
        ("completions", {"prompt": "a", "json_schema": {"anyOf": 5}}, "json_schema.anyOf"),
        ("embeddings", {"input": [1, 2]}, "input"),
        ("embeddings", {"content": [[1, 2]]}, "content"),
    ],
)
def test_refused(group: str, body: dict[str, Any], path: str, refused: Refused) -> None:
    assert refused(lambda: check(group, body)) == path


def test_blank_stops_and_schemas_of_tools_are_made_fit() -> None:
    body: dict[str, Any] = {**CHAT, "stop": "", "tools": [tool()]}
    changes = check("chat", body)
    assert changes.changed
    assert "stop" not in body
    assert changes.warnings == ["tools[0].function.parameters.properties.a.minimum is not enforced"]


VALUES: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], ["x"], [[]], [None], {}, {"type": []}, {"type": {}}, {"a": 1}]
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
TEXT = {"type": "text", "text": "a"}
NAMED = {"type": "function", "function": {"name": "f"}}
SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("chat", {**CHAT, "stop": ["a"], "tools": [tool(strict=True)], "tool_choice": NAMED}),
    ("chat", {**CHAT, "response_format": STRICT, "stop": ""}),
    (
        "chat",
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [{"id": "a", **NAMED}]},
                {"role": "user", "content": [IMAGE, {"type": "refusal", "refusal": "x"}]},
            ]
        },
    ),
    (
        "messages",
        {
            "system": [{"type": "text", "text": "a"}],
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "aGk="}}]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text"}]}],
                },
            ],
            "tools": [{"name": "a", "input_schema": NUMBER}],
            "tool_choice": {"type": "tool", "name": "a"},
        },
    ),
    (
        "responses",
        {
            "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
                {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "summary": [], "content": [{"text": "a"}]},
            ],
            "text": {"format": {"type": "json_schema", "schema": NUMBER, "strict": True}},
            "tools": [{"type": "function", "name": "f", "parameters": NUMBER}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        },
    ),
    (
        "completions",
        {"prompt": [{"prompt_string": "a", "multimodal_data": ["x"]}], "stop": ["a"], "json_schema": NUMBER},
    ),
    ("embeddings", {"input": [[1]], "content": "a"}),
]


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values within a value."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inner for found in ((*path, key), *places(item, (*path, key)))]


def replaced(body: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return a copy with another value at a path."""
    copied = copy.deepcopy(body)
    holder: Any = copied
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = copy.deepcopy(value)
    return copied


def test_any_value_at_any_place_is_taken_or_refused_and_nothing_else() -> None:
    tried = 0
    for group, body in SEEDS:
        for path in places(body):
            for value in VALUES:
                tried += 1
                try:
                    check(group, replaced(body, path, value))
                except GatewayError as error:
                    assert error.status == 400  # noqa: PT017 - most are refused, some are not
    assert tried > 1500


@pytest.mark.parametrize(
    ("thinking", "options", "left"),
    [
        ({"type": "disabled"}, None, {"enable_thinking": False}),
        ({"type": "disabled"}, {"a": 1}, {"a": 1, "enable_thinking": False}),
        ({"type": "disabled"}, {"enable_thinking": True}, {"enable_thinking": True}),
        ({"type": "enabled", "budget_tokens": 1024}, None, None),
        ({"type": "adaptive"}, None, None),
        ({}, None, None),
    ],
)
def test_disabled_thinking_reaches_the_template(thinking: object, options: object, left: object) -> None:
    body: dict[str, Any] = {**CHAT, "thinking": thinking}
    if options is not None:
        body["chat_template_kwargs"] = options
    changes = check("messages", body)
    assert body.get("chat_template_kwargs") == left
    assert changes.changed is (left is not None and left != {"enable_thinking": True})


def test_the_format_of_a_responses_text_becomes_what_the_engine_reads() -> None:
    """llama-server reads only `response_format`, so that `responses.parse()` would get prose."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    body: dict[str, Any] = {"input": "hi", "text": {"format": form}}
    assert check("responses", body).changed
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"schema": schema, "strict": True}}
    body = {"input": "hi", "text": {"format": {"type": "json_object"}}}
    assert check("responses", body).changed
    assert body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("other", [{"grammar": 'root ::= "a"'}, {"response_format": {"type": "json_object"}}])
def test_two_forms_of_one_answer_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        check("responses", {"input": "hi", "text": {"format": {"type": "json_object"}}, **other})
    assert caught.value.param == "text.format"
