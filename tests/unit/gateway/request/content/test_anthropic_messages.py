"""The blocks of Anthropic's messages: each is translated, or refused by name; none is dropped in silence."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.gateway.request.content.anthropic_messages import check_anthropic_messages
from llama_gguf.gateway.request.content.media import MediaCheck, MediaRules

from ..conftest import Refused

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def check(body: dict[str, Any], *, supported: bool = True) -> None:
    check_anthropic_messages(body, MediaCheck(MediaRules(supported, allow_remote=False, max_items=4)))


def user(*blocks: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "hi"}], "system": "s"},
        {"messages": [{"role": "user", "content": "hi"}], "system": [{"type": "text", "text": "s"}]},
        user({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, IMAGE),
        user({"type": "thinking", "thinking": "a", "signature": "x"}, {"type": "redacted_thinking", "data": "x"}),
        user({"type": "tool_use", "id": "i", "name": "n", "input": {"source": {"url": "http://x"}}}),
        user({"type": "tool_result", "tool_use_id": "i", "content": [IMAGE, {"type": "text", "text": "x"}]}),
        user({"type": "tool_result", "tool_use_id": "i"}),
        user({"type": "tool_result", "tool_use_id": "i", "content": "x", "is_error": True}),
    ],
)
def test_what_clients_send_passes(body: dict[str, Any]) -> None:
    check(body)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a"}], "system": 5}, "system"),
        ({"messages": [{"role": "user", "content": "a"}], "system": [{"type": "image"}]}, "system[0]"),
        (user("x"), "messages[0].content[0]"),
        (user({}), "messages[0].content[0].type"),
        (user({"type": "document", "source": {}}), "messages[0].content[0].type"),
        (user({"type": "text"}), "messages[0].content[0].text"),
        (user({"type": "thinking", "thinking": 5}), "messages[0].content[0].thinking"),
        (user({"type": "image"}), "messages[0].content[0].source"),
        (user({"type": "image", "source": {"type": "file", "file_id": "x"}}), "messages[0].content[0].source.type"),
        (user({"type": "tool_use", "name": "n"}), "messages[0].content[0].id"),
        (user({"type": "tool_use", "id": "i", "name": "n", "input": "{}"}), "messages[0].content[0].input"),
        (user({"type": "tool_result", "content": "x"}), "messages[0].content[0].tool_use_id"),
        (user({"type": "tool_result", "tool_use_id": "i", "content": 5}), "messages[0].content[0].content"),
        (
            user({"type": "tool_result", "tool_use_id": "i", "content": [{"type": "document"}]}),
            "messages[0].content[0].content[0].type",
        ),
    ],
)
def test_what_would_be_dropped_or_misread_is_named(body: dict[str, Any], path: str, refused: Refused) -> None:
    assert refused(lambda: check(body)) == path


def test_an_image_in_a_result_of_a_tool_is_media(refused: Refused) -> None:
    body = user({"type": "tool_result", "tool_use_id": "i", "content": [IMAGE]})
    assert refused(lambda: check(body, supported=False)) == "messages[0].content[0].content[0]"
