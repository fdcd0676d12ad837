"""The log probabilities of completions have OpenAI's older shape."""

from __future__ import annotations

import math
from typing import Any

from openai.types import Completion

from llama_gguf.gateway.translate.completion_logprobs import CompletionLogprobs


def entry(token: str, value: float = -0.5) -> dict[str, Any]:
    top = [
        {"id": 1, "token": token, "bytes": [], "logprob": value},
        {"id": 2, "token": "z", "bytes": [], "logprob": -3},
    ]
    return {"id": 1, "token": token, "bytes": [], "logprob": value, "top_logprobs": top}


def answer(*entries: dict[str, Any], index: int = 0) -> dict[str, Any]:
    text = "".join(one["token"] for one in entries)
    choice = {"text": text, "index": index, "finish_reason": "stop", "logprobs": {"content": list(entries)}}
    return {"id": "c", "created": 1, "model": "m", "object": "text_completion", "choices": [choice]}


def test_a_whole_answer() -> None:
    found = Completion.model_validate(CompletionLogprobs().body(answer(entry("Hé"), entry(" a")))).choices[0].logprobs
    assert found is not None
    assert found.tokens == ["Hé", " a"]
    assert found.token_logprobs == [-0.5, -0.5]
    assert found.top_logprobs == [{"Hé": -0.5, "z": -3}, {" a": -0.5, "z": -3}]
    assert found.text_offset == [0, 2]


def test_offsets_of_a_stream_go_on_for_each_choice() -> None:
    one = CompletionLogprobs()
    parts = [answer(entry("ab")), answer(entry("x"), index=1), answer(entry("c")), answer(entry("y"), index=1)]
    offsets = [event["choices"][0]["logprobs"]["text_offset"] for part in parts for event in one.events(part)]
    assert offsets == [[0], [0], [2], [1]]


def test_probabilities_become_logarithms_and_none_stays_none() -> None:
    half = {"token": "a", "prob": 0.5, "top_probs": [{"token": "a", "prob": 0.5}, {"token": "b", "prob": 0.0}]}
    logprobs = CompletionLogprobs().body(answer(half))["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [math.log(0.5)]
    assert logprobs["top_logprobs"] == [{"a": math.log(0.5), "b": None}]


def test_answers_without_them_stay_as_they_are() -> None:
    for other in ({"error": {"message": "m"}}, {"choices": [{"logprobs": None}]}, {"content": "x"}):
        assert CompletionLogprobs().body({**other}) == other
