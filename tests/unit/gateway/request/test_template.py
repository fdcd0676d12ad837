"""Tools are judged by what the engine says of the template; what it does not say changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.template import check_tools_of_template

from .conftest import Refused

TOLD = ["tools are left out: the chat template of this model has no tools"]


def props(tools: object, calls: object) -> bytes:
    return json.dumps({"chat_template_caps": {"supports_tools": tools, "supports_tool_calls": calls}}).encode()


WITHOUT = props(False, False)


def check(said: bytes, **fields: Any) -> list[str]:
    changes = Changes()
    check_tools_of_template(said, {"tools": [{}], **fields}, changes)
    assert not changes.changed
    return changes.warnings


@pytest.mark.parametrize("choice", ["required", {"type": "any"}])
def test_a_call_that_cannot_come_is_refused(choice: object, refused: Refused) -> None:
    assert refused(lambda: check(WITHOUT, tool_choice=choice)) == "tool_choice"


@pytest.mark.parametrize("fields", [{}, {"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}])
def test_tools_that_are_only_offered_are_told(fields: dict[str, Any]) -> None:
    assert check(WITHOUT, **fields) == TOLD


def test_tools_that_are_not_to_be_used_are_no_matter() -> None:
    assert check(WITHOUT, tool_choice="none") == []


@pytest.mark.parametrize(
    "said",
    [
        *(props(True, True), props(True, False), props(False, True), props(None, None), props(0, 0)),
        *(b"", b"{", b"[]", b"null", b"{}", b'{"chat_template_caps": []}', b'{"chat_template_caps": {}}'),
    ],
)
def test_what_is_not_certain_changes_nothing(said: bytes) -> None:
    for choice in ("required", "auto", {"type": "any"}):
        assert check(said, tool_choice=choice) == []
