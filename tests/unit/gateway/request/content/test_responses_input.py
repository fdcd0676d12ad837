"""The items of a Responses input: each is translated, made fit, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.content.media import MediaCheck, MediaRules
from llama_gguf.gateway.request.content.responses_input import check_responses_input

from ..conftest import Refused

USER = {"role": "user", "content": "hi"}


def check(body: dict[str, Any]) -> Changes:
    changes = Changes()
    check_responses_input(body, MediaCheck(MediaRules(supported=True, allow_remote=False, max_items=4)), changes)
    return changes


def call(**more: object) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", **more}


@pytest.mark.parametrize(
    "items",
    [
        "hi",
        [USER],
        [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]}],
        [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a", "annotations": []}],
            }
        ],
        [USER, call(), {"type": "function_call_output", "call_id": "c", "output": "r"}],
        [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]}],
        [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]}, USER],
        [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]}],
    ],
)
def test_what_the_engine_translates_passes_unchanged(items: object) -> None:
    assert not check({"input": items, "instructions": "x"}).changed


@pytest.mark.parametrize("content", [None, [], "missing"])
def test_reasoning_that_only_its_own_model_can_read_is_left_out(content: object) -> None:
    """The engine refuses it, and agents send back what they got."""
    item: dict[str, Any] = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"}
    if content != "missing":
        item["content"] = content
    body = {"input": [item, USER]}
    assert check(body).changed
    assert body["input"] == [USER]


def test_an_answer_without_a_type_is_a_message() -> None:
    body = {"input": [USER, {"role": "assistant", "content": "a"}, USER]}
    assert check(body).changed
    assert body["input"][1] == {"role": "assistant", "content": "a", "type": "message"}


def test_a_call_without_arguments() -> None:
    body = {"input": [USER, call(arguments="")]}
    assert check(body).changed
    assert body["input"][1]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [call(arguments="{")]}, "input[0].arguments"),
        ({"input": [call(arguments={})]}, "input[0].arguments"),
        ({"input": [call(call_id=None)]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": [{}]}]}, "input[0].output[0].type"),
        ({"input": "a", "previous_response_id": "r"}, "previous_response_id"),
        ({"input": "a", "conversation": "c"}, "conversation"),
        ({"input": "a", "background": True}, "background"),
        ({"input": "a", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "a", "instructions": ["x"]}, "instructions"),
    ],
)
def test_what_would_be_answered_wrong_is_named(body: dict[str, Any], path: str, refused: Refused) -> None:
    assert refused(lambda: check(body)) == path
