"""Token counts, read from the end of a response."""

from __future__ import annotations

import json

import pytest

from llama_gguf.gateway.tokens.counts import Tokens, read_tokens

TIMINGS = {"cache_n": 4, "prompt_n": 7, "prompt_ms": 1.5, "predicted_n": 9, "predicted_per_second": 80.5}
USAGE = {
    "completion_tokens": 9,
    "prompt_tokens": 11,
    "total_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def test_timings_win_over_usage() -> None:
    data = dump({"choices": [{"finish_reason": "stop"}], "usage": USAGE, "timings": TIMINGS})
    assert read_tokens(data) == Tokens(11, 4, 9, exact=True, finish_reason="stop", tokens_per_second=80.5)


def test_usage_alone() -> None:
    assert read_tokens(dump({"usage": USAGE})) == Tokens(11, 4, 9, exact=True)


def test_usage_of_responses_and_of_anthropic() -> None:
    responses = {"input_tokens": 11, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 4}}
    assert read_tokens(dump({"usage": responses})) == Tokens(11, 4, 9, exact=True)
    anthropic = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 9}
    read = read_tokens(dump({"stop_reason": "end_turn", "usage": anthropic}))
    assert read == Tokens(11, 4, 9, exact=True, finish_reason="end_turn")


def test_the_last_counts_count() -> None:
    first, last = {**TIMINGS, "predicted_n": 1}, TIMINGS
    data = b"data: " + dump({"timings": first}) + b"\n\ndata: " + dump({"timings": last}) + b"\n\ndata: [DONE]\n\n"
    assert (read_tokens(data) or Tokens()).completion == 9


@pytest.mark.parametrize(
    "text",
    ['"timings":{"predicted_n":1000000,"prompt_n":1}', '"usage":{"completion_tokens":1000000}', '\\"timings\\":{}'],
)
def test_a_text_about_counts_is_not_taken_for_counts(text: str) -> None:
    data = dump({"timings": TIMINGS, "choices": [{"message": {"content": text}}]})
    assert (read_tokens(data) or Tokens()).completion == 9
    assert read_tokens(dump({"choices": [{"message": {"content": text}}]})) is None


@pytest.mark.parametrize(
    "data", [b"", b'"timings":{', b'"usage":{"a":{', b'"usage":{broken}', b'"timings":{"predicted_n":1,}', b"x" * 100]
)
def test_broken_ends_tell_nothing(data: bytes) -> None:
    assert read_tokens(data) is None


@pytest.mark.parametrize("value", [-5, True, "9", 1.5, None])
def test_odd_counts_count_for_nothing(value: object) -> None:
    assert (read_tokens(dump({"timings": {**TIMINGS, "predicted_n": value}})) or Tokens()).completion == 0


def test_tokens_add_up() -> None:
    assert Tokens(prompt=3, completion=4).total == 7


def test_counts_inside_a_tool_call_are_not_the_engines() -> None:
    spoof = (
        b'{"content":[{"type":"tool_use","input":{"timings":{"predicted_n":0}}}],'
        b'"usage":{"input_tokens":5,"output_tokens":9}}'
    )
    tokens = read_tokens(spoof)
    assert tokens is not None
    assert (tokens.prompt, tokens.completion) == (5, 9)
