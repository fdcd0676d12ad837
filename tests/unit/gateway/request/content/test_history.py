"""The messages of a chat, as a client has them and as somebody makes them who wants a 500."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.content.history import check_chat_messages
from llama_gguf.gateway.request.content.media import MediaCheck, MediaRules

from ..conftest import Refused

RULES = MediaRules(supported=False, allow_remote=False, max_items=4)
USER = {"role": "user", "content": "hi"}


def check(*messages: Any) -> Changes:
    changes = Changes()
    check_chat_messages(list(messages), MediaCheck(RULES), changes)
    return changes


def calling(call: object) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def call(**function: object) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}", **function}}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "system", "content": ""}, USER],
        [{"role": "developer", "content": "x"}, USER],
        [USER, {"role": "assistant", "content": "a"}, USER],
        [USER, calling(call()), {"role": "tool", "tool_call_id": "c1", "content": "r"}],
        [USER, calling(call(arguments={"a": 1})), USER],
        [{"role": "user", "content": [{"type": "text", "text": "a"}], "name": "n"}],
        [{"role": "tool", "content": None, "tool_call_id": "c1"}],
        [{"role": "user", "content": 'see http://x and {"type":"image_url"} file:///etc'}],
    ],
)
def test_what_clients_send_passes_unchanged(messages: list[Any]) -> None:
    assert not check(*messages).changed


def test_arguments_that_hold_media_words_are_none() -> None:
    """Today such a conversation is dead for good."""
    arguments = '{"image_url": "http://x/a.png", "source": {"url": "file:///etc/passwd"}, "type": "image_url"}'
    assert not check(USER, calling(call(arguments=arguments)), USER).changed
    held = {"role": "tool", "tool_call_id": "c1", "content": arguments}
    assert not check(USER, calling(call(arguments={"source": "http://x"})), held).changed


@pytest.mark.parametrize("arguments", [None, "", " \n"])
def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    message = calling(call(arguments=arguments))
    assert check(USER, message, USER).changed
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"
    message = calling({"id": "c", "type": "function", "function": {"name": "f"}})
    check(USER, message, USER)
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_null_is_left_out() -> None:
    message = {"role": "assistant", "content": "a", "tool_calls": None, "name": None, "reasoning_content": None}
    assert check(USER, message, USER).changed
    assert message == {"role": "assistant", "content": "a"}


def test_a_refusal_of_an_earlier_answer_becomes_text() -> None:
    message = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert check(USER, message, USER).changed
    assert message["content"] == [{"type": "text", "text": "no"}]


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ("x", "messages[1]"),
        (None, "messages[1]"),
        ({}, "messages[1].role"),
        ({"role": 5, "content": "a"}, "messages[1].role"),
        ({"role": "", "content": "a"}, "messages[1].role"),
        ({"role": ["user"], "content": "a"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "assistant"}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": {"type": "text"}}, "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "media_marker", "text": "x"}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": "a", "name": 5}, "messages[1].name"),
        ({"role": "tool", "content": "a", "tool_call_id": 5}, "messages[1].tool_call_id"),
        ({"role": "assistant", "content": "a", "function_call": {"name": "f"}}, "messages[1].function_call"),
        ({"role": "assistant", "tool_calls": "x"}, "messages[1].tool_calls"),
        (calling("x"), "messages[1].tool_calls[0]"),
        (calling({}), "messages[1].tool_calls[0].type"),
        (calling({"type": "function"}), "messages[1].tool_calls[0].function"),
        (calling({"type": "function", "function": {}}), "messages[1].tool_calls[0].function.name"),
        (calling(call(name=5)), "messages[1].tool_calls[0].function.name"),
        (calling({**call(), "id": 5}), "messages[1].tool_calls[0].id"),
        (calling(call(arguments='{"a": ')), "messages[1].tool_calls[0].function.arguments"),
        (calling(call(arguments="[1]")), "messages[1].tool_calls[0].function.arguments"),
        (calling(call(arguments=5)), "messages[1].tool_calls[0].function.arguments"),
        (calling(call(arguments="[" * 100_000)), "messages[1].tool_calls[0].function.arguments"),
    ],
)
def test_what_the_engine_cannot_work_with_is_named(message: object, path: str, refused: Refused) -> None:
    assert refused(lambda: check(USER, message, USER)) == path


@pytest.mark.parametrize("messages", [None, "x", {}, [], 5])
def test_no_messages(messages: object, refused: Refused) -> None:
    assert refused(lambda: check_chat_messages(messages, MediaCheck(RULES), Changes())) == "messages"
