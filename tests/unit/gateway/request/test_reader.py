"""A whole body: read once, checked, changed where it must be, and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.request.constraints.schemas import SchemaLimits
from llama_gguf.gateway.request.content.media import MediaRules
from llama_gguf.gateway.request.fields import TABLES
from llama_gguf.gateway.request.meaning import MeaningRules
from llama_gguf.gateway.request.reader import ReadingRules, RequestContent, RequestReader

from .conftest import Refused

RULES = MeaningRules(
    MediaRules(supported=False, allow_remote=False, max_items=4), SchemaLimits(100, 16), "warn", 3, 4, 10
)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def read(group: str, body: dict[str, Any], *, admin: bool = False) -> RequestContent:
    return RequestReader(ReadingRules(RULES, 4)).read(group, json.dumps(body).encode(), admin=admin)


def test_a_body_that_need_not_change_stays_byte_for_byte() -> None:
    data = b'{ "messages" : [{"content":"hi","role":"user"}],\n"max_tokens":5, "temperature":0.5e0 }'
    content = RequestReader(ReadingRules(RULES, 4)).read("chat", data, admin=False)
    assert content.data is data
    assert (content.model, content.choices, content.prompts, content.warning_lines) == ("", 1, 1, "")


def test_null_is_left_out_without_a_word_and_what_is_not_known_with_one() -> None:
    content = read("chat", {**CHAT, "temperature": None, "chat_parser": None, "enable_thinking": True, "x\r\ny": 1})
    assert json.loads(content.data) == CHAT
    assert content.warning_lines.count("Warning: 199") == 2
    assert "enable_thinking is not known" in content.warning_lines
    assert content.warning_lines.count("\r\n") == 2


def test_options_of_anthropics_api_that_change_no_answer_are_left_out_and_told() -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    content = read(
        "messages", {**CHAT, "output_config": {"effort": "low"}, "context_management": edits, "mcp_servers": []}
    )
    assert json.loads(content.data) == CHAT
    for name in ("output_config", "context_management", "mcp_servers"):
        assert f"{name} is not known here and was left out" in content.warning_lines


def test_null_for_what_is_not_known_is_no_matter() -> None:
    content = read("messages", {**CHAT, "output_format": None, "anything": None})
    assert (json.loads(content.data), content.warning_lines) == (CHAT, "")


INTERNAL = ["grammar_lazy", "grammar_triggers", "chat_parser", "preserved_tokens", "id_slot", "generation_prompt"]


@pytest.mark.parametrize("group", ["chat", "completions", "responses", "infill", "messages"])
@pytest.mark.parametrize("name", INTERNAL)
@pytest.mark.parametrize("admin", [False, True])
def test_what_the_engine_tells_itself_nobody_else_may(group: str, name: str, admin: bool, refused: Refused) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "completions": {"prompt": "a"},
        "responses": {"input": "a"},
        "infill": {"input_prefix": "a", "input_suffix": "b"},
    }
    body = bodies.get(group, CHAT)
    assert refused(lambda: read(group, {**body, name: [], "stream": False}, admin=admin)) == name


def test_what_is_for_admins(refused: Refused) -> None:
    assert refused(lambda: read("chat", {**CHAT, "verbose": True})) == "verbose"
    assert read("chat", {**CHAT, "verbose": True}, admin=True).fields["verbose"] is True


@pytest.mark.parametrize(
    ("group", "body", "path"),
    [
        ("chat", {**CHAT, "n": 2.0}, "n"),
        ("chat", {**CHAT, "n": True}, "n"),
        ("chat", {**CHAT, "n": "2"}, "n"),
        ("chat", {**CHAT, "n": 0}, "n"),
        ("chat", {**CHAT, "n": 5}, "n"),
        ("chat", {**CHAT, "n_cmpl": 5}, "n_cmpl"),
        ("chat", {**CHAT, "stream": True, "n": 1_000_000, "n_cmpl": 1}, "n_cmpl"),
        ("chat", {**CHAT, "n": 1, "n_cmpl": 2}, "n_cmpl"),
        ("chat", {**CHAT, "max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ("chat", {**CHAT, "max_tokens": 5, "n_predict": -1}, "max_tokens"),
        ("chat", {**CHAT, "stream": "yes"}, "stream"),
        ("chat", {**CHAT, "temperature": -1}, "temperature"),
        ("chat", {**CHAT, "repeat_last_n": 2**31 - 1}, "repeat_last_n"),
        ("chat", {**CHAT, "dry_penalty_last_n": 2**31 - 1}, "dry_penalty_last_n"),
        ("chat", {**CHAT, "n_probs": 100_000}, "n_probs"),
        ("chat", {**CHAT, "logprobs": True, "top_logprobs": 100_000}, "top_logprobs"),
        ("chat", {**CHAT, "stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ("chat", {**CHAT, "stop": "a" * 5000}, "stop"),
        ("chat", {**CHAT, "samplers": 5}, "samplers"),
        ("chat", {**CHAT, "logit_bias": {"a": "b"}}, "logit_bias"),
        ("chat", {**CHAT, "logit_bias": [[1]]}, "logit_bias"),
        ("chat", {**CHAT, "logit_bias": {str(number): 1 for number in range(2000)}}, "logit_bias"),
        ("chat", {**CHAT, "grammar": "root ::= x", "json_schema": {}}, "json_schema"),
        ("chat", {**CHAT, "grammar": "root ::= x", "response_format": {"type": "json_object"}}, "response_format"),
        ("chat", {**CHAT, "grammar": "root ::= " + "(" * 60_000}, "grammar"),
        ("chat", {**CHAT, "prompt": "x"}, "prompt"),
        ("chat", {**CHAT, "modalities": ["text", "audio"]}, "modalities"),
        ("chat", {**CHAT, "model": 5}, "model"),
        (
            "messages",
            {**CHAT, "output_config": {"format": {"type": "json_schema", "schema": {}}}},
            "output_config.format",
        ),
        ("messages", {**CHAT, "output_format": {"type": "json_schema", "schema": {}}}, "output_format"),
        ("messages", {**CHAT, "mcp_servers": [{"type": "url", "name": "a", "url": "https://a"}]}, "mcp_servers"),
        ("chat", {**CHAT, "guided_json": {"type": "object"}}, "guided_json"),
        ("completions", {}, "prompt"),
        ("completions", {"prompt": None}, "prompt"),
        ("completions", {"prompt": ["a"] * 11}, "prompt"),
        ("completions", {"prompt": "a", "echo": True}, "echo"),
        ("completions", {"prompt": "a", "best_of": 2}, "best_of"),
        ("completions", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("responses", {"input": "a", "messages": []}, "messages"),
        ("responses", {"input": "a", "max_output_tokens": 5, "max_tokens": 6}, "max_output_tokens"),
        ("chat", {**CHAT, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ("messages", {**CHAT, "chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ("embeddings", {"input": "a", "dimensions": 64}, "dimensions"),
        ("embeddings", {}, "input"),
        ("embeddings", {"input": "a", "content": "b"}, "content"),
        ("embeddings", {"input": ["a"] * 11}, "input"),
        ("embeddings", {"input": "a", "encoding_format": 5}, "encoding_format"),
        ("rerank", {"documents": ["a"]}, "query"),
        ("rerank", {"query": "a"}, "documents"),
        ("rerank", {"query": "a", "documents": [5]}, "documents[0]"),
        ("infill", {"input_prefix": "a"}, "input_suffix"),
        ("infill", {"input_prefix": "a", "input_suffix": "b", "input_extra": [{}]}, "input_extra[0].text"),
        ("tokenize", {"content": 5}, "content"),
        ("tokenize", {"content": {"prompt_string": "a"}}, "content"),
        ("tokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("tokenize", {"tokens": [-5]}, "tokens[0]"),
    ],
)
def test_refused(group: str, body: dict[str, Any], path: str, refused: Refused) -> None:
    assert refused(lambda: read(group, body)) == path


@pytest.mark.parametrize(
    ("group", "body", "choices", "prompts"),
    [
        ("chat", CHAT, 1, 1),
        ("chat", {**CHAT, "n": 3, "n_cmpl": 3}, 3, 1),
        ("chat", {**CHAT, "n_cmpl": 2}, 2, 1),
        ("completions", {"prompt": ["a", "b"], "n": 2}, 2, 2),
        ("completions", {"prompt": [1, 2]}, 1, 1),
        ("embeddings", {"input": ["a", "b", "c"]}, 1, 3),
        ("rerank", {"query": "a", "documents": ["b", "c"]}, 1, 2),
        ("tokenize", {"content": ["a", "b"]}, 1, 1),
        ("tokenize", {}, 1, 1),
    ],
)
def test_counted(group: str, body: dict[str, Any], choices: int, prompts: int) -> None:
    content = read(group, body)
    assert (content.choices, content.prompts) == (choices, prompts)


VALUES: list[Any] = [None, True, -1, 0, 2.5, 10**20, "", "x", [], ["x"], [5], {}, {"type": "x"}, "a" * 70_000]


@pytest.mark.parametrize("group", TABLES)
def test_any_value_of_any_field_is_taken_or_refused_and_nothing_else(group: str) -> None:
    for name in TABLES[group]:
        for value in VALUES:
            try:
                content = read(group, {**CHAT, name: value})
            except GatewayError as error:
                assert error.status == 400  # noqa: PT017 - most are refused, some are not
            else:
                assert isinstance(json.loads(content.data), dict)
