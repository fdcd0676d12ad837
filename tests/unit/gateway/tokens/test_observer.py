"""Reading the end of a passing response."""

from __future__ import annotations

import json

import pytest

from llama_gguf.gateway.http1.chunked import chunk
from llama_gguf.gateway.tokens.counts import Tokens
from llama_gguf.gateway.tokens.observer import EVENT_END, EVENT_END_FRAMED, ManyObserver, Observer

TIMINGS = {"cache_n": 4, "prompt_n": 7, "prompt_ms": 1.5, "predicted_n": 9, "predicted_per_second": 80.5}


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@pytest.mark.parametrize("size", [1, 7, 100, 4096, 100_000])
def test_an_observer_sees_the_end_in_whatever_pieces_it_comes(size: int) -> None:
    events = [dump({"choices": [{"delta": {"content": "x" * 50}}]}) for _ in range(2000)]
    events += [dump({"choices": [{"delta": {}, "finish_reason": "length"}], "timings": TIMINGS}), b"[DONE]"]
    stream = b"".join(chunk(b"data: " + event + b"\n\n") for event in events) + b"0\r\n\r\n"
    observer = Observer(EVENT_END_FRAMED)
    for at in range(0, len(stream), size):
        observer.observe(stream[at : at + size])
    found = observer.tokens()
    assert found == Tokens(11, 4, 9, exact=True, finish_reason="length", tokens_per_second=80.5)
    assert observer.size == len(stream)
    if size > 10:
        assert observer.events >= 1950  # an event's end cut in two by a read goes uncounted


def test_an_observer_finds_counts_at_the_beginning_too() -> None:
    observer = Observer(EVENT_END)
    observer.observe(dump({"usage": {"prompt_tokens": 5, "total_tokens": 5}})[:-1] + b',"data":[')
    for _ in range(100):
        observer.observe(b"0.125," * 1000)
    assert observer.tokens() == Tokens(5, 0, 0, exact=True)


@pytest.mark.parametrize("filler", [0, 100_000])
def test_anthropic_streams_tell_the_prompt_first_and_the_answer_last(filler: int) -> None:
    first = {"type": "message_start", "message": {"usage": {"cache_read_input_tokens": 30, "input_tokens": 1}}}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 8}}
    observer = Observer(EVENT_END)
    observer.observe(b"event: message_start\ndata: " + dump(first) + b"\n\n")
    observer.observe(b"x" * filler)
    observer.observe(b"event: message_delta\ndata: " + dump(last) + b"\n\nevent: message_stop\ndata: {}\n\n")
    assert observer.tokens() == Tokens(31, 30, 8, exact=True, finish_reason="end_turn")


def test_what_the_engine_sends_at_a_time_is_counted_once() -> None:
    """A chat's first token comes as two events in one chunk, an Anthropic one as three."""
    events = b"data: {}\n\n" * 3
    framed, bare = Observer(EVENT_END_FRAMED), Observer(EVENT_END)
    framed.observe(chunk(events))
    bare.observe(events)
    assert (framed.events, bare.events) == (1, 3)


def partial(**values: object) -> bytes:
    return chunk(b"data: " + dump(values) + b"\n\n")


def test_what_can_be_told_of_a_stream_that_was_cut() -> None:
    chat = Observer(EVENT_END_FRAMED)
    for _ in range(5):
        chat.observe(partial(choices=[{"delta": {"content": "x"}, "finish_reason": None}]))
    assert chat.tokens_so_far() == Tokens(completion=5)
    native = Observer(EVENT_END_FRAMED)
    native.observe(partial(content="x", stop=False, tokens_predicted=8, tokens_evaluated=30))
    assert native.tokens_so_far() == Tokens(30, completion=8)
    messages = Observer(EVENT_END_FRAMED)
    messages.observe(
        partial(type="message_start", message={"usage": {"cache_read_input_tokens": 30, "input_tokens": 1}})
    )
    messages.observe(partial(type="content_block_delta"))
    assert messages.tokens_so_far() == Tokens(31, 30, 2)
    per_token = Observer(EVENT_END_FRAMED)
    per_token.observe(partial(choices=[{"finish_reason": None}], timings=TIMINGS))
    assert per_token.tokens_so_far() == Tokens(11, 4, 9)


def test_a_stream_that_was_cut_behind_its_counts_is_exact() -> None:
    observer = Observer(EVENT_END_FRAMED)
    observer.observe(partial(choices=[{"finish_reason": "stop"}], timings=TIMINGS))
    assert observer.tokens_so_far() == Tokens(11, 4, 9, exact=True, finish_reason="stop", tokens_per_second=80.5)


@pytest.mark.parametrize("size", [3, 50, 100_000])
def test_counts_of_several_answers_in_one_stream_are_added(size: int) -> None:
    ends = [partial(choices=[{"index": index, "finish_reason": "stop"}], timings=TIMINGS) for index in range(3)]
    token = partial(choices=[{"index": 1, "finish_reason": None}], timings={**TIMINGS, "predicted_n": 1})
    stream = token + ends[0] + token + ends[1] + ends[2]
    observer = ManyObserver(EVENT_END_FRAMED)
    assert observer.tokens() is None
    for at in range(0, len(stream), size):
        observer.observe(stream[at : at + size])
    found = observer.tokens()
    assert found is not None
    assert found[:3] == (33, 12, 27)
    cut = ManyObserver(EVENT_END_FRAMED)
    cut.observe(token * 4)
    assert cut.tokens_so_far() == Tokens(completion=4)
