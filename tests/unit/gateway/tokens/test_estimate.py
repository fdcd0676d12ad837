"""What a request may cost, guessed from its body."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from llama_gguf.gateway.tokens.estimate import estimate_chat_tokens, estimate_tokens

CONTEXT = 4096
TEXT = "a" * 400  # 100 tokens
IMAGE = "data:image/png;base64," + "A" * 100_000


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("group", "body", "tokens"),
    [
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": 50}, 150),
        ("chat", {"messages": [{"content": TEXT}], "max_completion_tokens": 50}, 150),
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": 50, "n": 3}, 450),
        ("chat", {"messages": [{"content": TEXT}]}, CONTEXT),  # until the context is full
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": -1}, CONTEXT),
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": 10**9}, CONTEXT),
        # The engine takes all of these; one that is small does not hide one that is large.
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": 1, "n_predict": 700}, 800),
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": 1, "n_predict": -1}, CONTEXT),
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": 1, "n": 1, "n_cmpl": 4}, 404),
        ("chat", {"messages": [{"content": [{"type": "text", "text": TEXT}]}], "max_tokens": 1}, 102),
        (
            "chat",
            {"messages": [{"content": TEXT}], "tools": [{"function": {"description": TEXT}}], "max_tokens": 1},
            201,
        ),
        ("chat", {"messages": [{"content": "ä" * 200}], "max_tokens": 1}, 101),  # bytes, not characters
        ("chat", {"messages": [{"content": [{"image_url": {"url": IMAGE}}]}], "max_tokens": 1}, 257),
        ("chat", {"messages": [{"content": [{"input_audio": {"data": IMAGE}}]}], "max_tokens": 1}, 257),
        ("completions", {"prompt": TEXT, "n_predict": 10}, 110),
        ("completions", {"prompt": [TEXT, TEXT], "max_tokens": 10}, 220),
        ("completions", {"prompt": [1, 2, 3, 4], "max_tokens": 10}, 14),
        ("completions", {"prompt": [[1, 2, 3, 4], [5, 6, 7, 8]], "max_tokens": 10}, 28),
        ("completions", {"prompt": [TEXT, TEXT]}, 2 * CONTEXT),
        ("responses", {"input": TEXT, "instructions": TEXT, "max_output_tokens": 7}, 207),
        ("messages", {"system": TEXT, "messages": [{"content": TEXT}], "max_tokens": 7}, 207),
        ("infill", {"input_prefix": TEXT, "input_suffix": TEXT, "input_extra": [{"text": TEXT}], "n_predict": 5}, 305),
        ("embeddings", {"input": TEXT}, 100),
        ("embeddings", {"content": [TEXT, TEXT]}, 200),
        ("embeddings", {"input": [1, 2, 3]}, 3),
        ("rerank", {"query": TEXT, "documents": [TEXT, TEXT, TEXT]}, 600),
        ("rerank", {"query": TEXT, "texts": [TEXT]}, 200),
        ("rerank", {"query": TEXT}, 100),
        ("tokenize", {"content": TEXT}, 0),
        ("models", {}, 0),
        ("embeddings", {}, 1),
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": True, "n": True}, CONTEXT),
        ("chat", {"messages": [{"content": TEXT}], "max_tokens": 2.0, "n": 10**6}, 102 * 64),
        ("chat", {"messages": [{"content": True}], "max_tokens": 1}, 1),
    ],
)
def test_estimates(group: str, body: dict[str, Any], tokens: int) -> None:
    for message in body.get("messages", []):
        message.pop("role", None)
    assert abs(estimate_tokens(group, body, 1_000_000, CONTEXT) - tokens) <= 1


def test_a_prompt_longer_than_the_context_is_cut_there() -> None:
    assert estimate_tokens("embeddings", {"input": "a" * 100_000}, 100_000, 512) == 512
    assert estimate_tokens("chat", {"messages": [user("a" * 100_000)], "max_tokens": 1}, 100_000, 512) == 512


def test_an_unknown_context_is_guessed() -> None:
    assert estimate_tokens("chat", {"messages": [user("hi")]}, 100) == 4096
    assert estimate_tokens("chat", {"messages": [user("hi")], "max_tokens": 9000}, 100) > 9000
    assert estimate_tokens("embeddings", {"input": "a" * 100_000}, 100_000) == 25_000


def test_a_prompt_is_never_more_tokens_than_the_body_has_bytes() -> None:
    assert estimate_tokens("embeddings", {"input": [1] * 50}, 40) <= 40


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        *("messages", "prompt", "input", "content", "query", "documents", "texts", "system", "tools"),
        *("max_tokens", "n_predict", "max_completion_tokens", "max_output_tokens", "n", "n_cmpl", "input_extra"),
    ]
)
GROUPS = st.sampled_from(["chat", "completions", "responses", "messages", "embeddings", "rerank", "infill", "tokenize"])


@pytest.mark.slow
@given(group=GROUPS, body=st.dictionaries(FIELDS, JSON, max_size=6), context=st.sampled_from([0, 512, 131_072]))
def test_any_body_has_an_estimate(group: str, body: dict[str, Any], context: int) -> None:
    tokens = estimate_tokens(group, body, 10_000, context)
    assert tokens >= (0 if group == "tokenize" else 1)


def talk(body: dict[str, Any], group: str = "chat", context: int = CONTEXT) -> int:
    return estimate_chat_tokens(group, orjson.dumps(body), body, context)


@pytest.mark.parametrize(
    ("changes", "answers"), [({"max_tokens": 50}, 1), ({"max_tokens": 50, "n": 3}, 3), ({}, 1), ({"n": 2}, 2)]
)
@pytest.mark.parametrize("context", [0, 120, CONTEXT])
def test_a_small_plain_request_is_estimated_by_its_length(changes: dict[str, Any], answers: int, context: int) -> None:
    body = {"messages": [user(TEXT)], **changes}
    walked = estimate_tokens("chat", body, 1000, context)
    assert walked <= talk(body, context=context) <= walked + 25 * answers  # the rest of its JSON: at most 100 bytes


@pytest.mark.parametrize(
    ("group", "body"),
    [
        ("chat", {"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}])], "max_tokens": 1}),
        ("chat", {"messages": [user("a" * 8000)], "max_tokens": 1}),
        ("chat", {"messages": [user("a")], "tools": [{"function": {"description": TEXT}}], "max_tokens": 1}),
        ("completions", {"prompt": [1] * 100, "max_tokens": 1}),
        ("embeddings", {"input": [1] * 100}),
    ],
)
def test_any_other_request_is_walked(group: str, body: dict[str, Any]) -> None:
    assert talk(body, group) == estimate_tokens(group, body, len(orjson.dumps(body)), CONTEXT)


def test_a_body_nested_too_deeply_is_not_walked_to_its_end() -> None:
    nested: Any = TEXT
    for _ in range(200):
        nested = [nested]
    assert estimate_tokens("embeddings", {"input": nested}, 1000, CONTEXT) == 1
