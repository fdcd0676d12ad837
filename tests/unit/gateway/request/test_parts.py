"""Many prompts in parts, and the responses to them as if they had been one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.gateway.request.parts import join_parts, split_parts

from .conftest import Refused


def split(group: str, fields: dict[str, Any], size: int) -> list[dict[str, Any]]:
    return [json.loads(part) for part in split_parts(group, fields, size)]


def join(group: str, fields: dict[str, Any], responses: list[Any], size: int) -> Any:
    return json.loads(join_parts(group, fields, [json.dumps(response).encode() for response in responses], size))


def test_parts_hold_everything_once_and_in_order() -> None:
    fields = {"model": "m", "prompt": ["a", "b", "c", "d", "e"], "n": 2, "stop": ["x"]}
    assert split("completions", fields, 2) == [
        {"model": "m", "n": 2, "stop": ["x"], "prompt": ["a", "b"]},
        {"model": "m", "n": 2, "stop": ["x"], "prompt": ["c", "d"]},
        {"model": "m", "n": 2, "stop": ["x"], "prompt": ["e"]},
    ]
    assert [part["content"] for part in split("embeddings", {"content": [[1], [2], [3]]}, 2)] == [[[1], [2]], [[3]]]
    assert split("rerank", {"query": "q", "documents": ["a", "b"], "top_n": 1}, 1) == [
        {"query": "q", "documents": ["a"]},
        {"query": "q", "documents": ["b"]},
    ]


def test_a_stream_is_not_split(refused: Refused) -> None:
    fields = {"prompt": ["a", "b", "c"], "stream": True}
    assert refused(lambda: split_parts("completions", fields, 2)) == "prompt"


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def test_completions_of_openai() -> None:
    def part(indexes: range, base: str, *counts: int) -> dict[str, Any]:
        choices = [{"index": index, "text": f"{base}{index}"} for index in indexes]
        return {"id": base, "choices": choices, "usage": usage(*counts), "timings": {"prompt_n": 1}}

    fields = {"prompt": ["a", "b", "c"], "n": 2}
    whole = join("completions", fields, [part(range(4), "x", 10, 5, 3), part(range(2), "y", 7, 2, 1)], 2)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3, 4, 5]
    assert [choice["text"] for choice in whole["choices"]] == ["x0", "x1", "x2", "x3", "y0", "y1"]
    assert whole["usage"] == usage(17, 7, 4)
    assert whole["id"] == "x"
    assert "timings" not in whole


def test_completions_of_llama_cpp() -> None:
    """One prompt gives an object, several a list."""
    responses: list[Any] = [[{"index": 0, "content": "a"}, {"index": 1, "content": "b"}], {"index": 0, "content": "c"}]
    whole = join("completions", {"prompt": ["a", "b", "c"]}, responses, 2)
    assert whole == [{"index": number, "content": text} for number, text in enumerate("abc")]


def test_embeddings() -> None:
    def part(*values: float) -> dict[str, Any]:
        data = [{"index": index, "embedding": [value]} for index, value in enumerate(values)]
        return {"object": "list", "data": data, "usage": {"prompt_tokens": len(values), "total_tokens": len(values)}}

    whole = join("embeddings", {"input": ["a", "b", "c"]}, [part(0.5, 1.5), part(2.5)], 2)
    assert [(entry["index"], entry["embedding"]) for entry in whole["data"]] == [(0, [0.5]), (1, [1.5]), (2, [2.5])]
    assert whole["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    own = [[{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [2]}], [{"index": 0, "embedding": [3]}]]
    assert [entry["index"] for entry in join("embeddings", {"input": ["a", "b", "c"]}, own, 2)] == [0, 1, 2]


@pytest.mark.parametrize(("top_n", "left"), [(None, [2, 0, 1]), (2, [2, 0])])
def test_rankings_are_ranked_as_one(top_n: int | None, left: list[int]) -> None:
    fields: dict[str, Any] = {"query": "q", "documents": ["a", "b", "c"]}
    if top_n:
        fields["top_n"] = top_n
    first = {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": 0.1}], "usage": {"x": 1}}
    second = {"results": [{"index": 0, "relevance_score": 0.9}], "usage": {"x": 2}}
    whole = join("rerank", fields, [first, second], 2)
    assert [entry["index"] for entry in whole["results"]] == left
    assert whole["usage"] == {"x": 3}
    own = [[{"index": 0, "score": 0.5}, {"index": 1, "score": 0.1}], [{"index": 0, "score": 0.9}]]
    assert [entry["index"] for entry in join("rerank", fields, own, 2)] == left
