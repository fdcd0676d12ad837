"""Events of llama-server become those of OpenAI's API, whatever the engine leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llama_gguf.gateway.translate.responses import ResponsesTranslation

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
CREATED = {"type": "response.created", "response": {"id": "resp_1", "object": "response", "status": "in_progress"}}
PROGRESS = {**CREATED, "type": "response.in_progress"}
PART = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}
MESSAGE = {"type": "message", "status": "completed", "id": "msg_1", "content": [PART], "role": "assistant"}
MESSAGE_STARTED = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
CALL = {"type": "function_call", "id": "fc_1", "status": "completed", "arguments": '{"a":1}', "call_id": "c"} | {
    "name": "f"
}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
TEXT_END: list[dict[str, Any]] = [
    {"type": "response.output_text.done", "item_id": "msg_1", "text": "Hello"},
    {"type": "response.content_part.done", "item_id": "msg_1", "part": PART},
    {"type": "response.output_item.done", "item": MESSAGE},
]


def text_start(delta: str) -> list[dict[str, Any]]:
    return [
        {"type": "response.output_item.added", "item": MESSAGE_STARTED},
        {
            "type": "response.content_part.added",
            "item_id": "msg_1",
            "part": {"type": "output_text", "text": ""},
        },
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": delta},
    ]


def completed(*output: dict[str, Any], tokens: int = 3) -> dict[str, Any]:
    usage: dict[str, Any] = {"input_tokens": 5, "output_tokens": tokens, "total_tokens": 5 + tokens}
    usage["input_tokens_details"] = {"cached_tokens": 0}
    response = {"id": "resp_1", "object": "response", "created_at": 7, "status": "completed", "model": "m"}
    return {"type": "response.completed", "response": {**response, "output": list(output), "usage": usage}}


def translation(context: int = 0, **asked: Any) -> ResponsesTranslation:
    return ResponsesTranslation(asked, model="m", request_id="r", created_at=7, context=context)


def translate(events: list[dict[str, Any]], context: int = 0, **asked: Any) -> list[dict[str, Any]]:
    """Translate a stream and hold each event to OpenAI's own model of it."""
    one = translation(context, **asked)
    result = [new for event in events for new in one.events({**event})]
    for event in result:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in result] == list(range(len(result)))
    return result


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_each_event_says_where_it_belongs() -> None:
    events = translate([CREATED, PROGRESS, *text_start("Hello"), *TEXT_END, completed(MESSAGE)], tools=[TOOL])
    assert kinds(events) == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert {event["output_index"] for event in events[2:-1]} == {0}
    assert events[0]["response"]["output"] == []
    assert events[-1]["response"]["tools"] == [TOOL]
    assert {event["response"]["id"] for event in events if "response" in event} == {"resp_1"}


def test_items_count_on_and_end_with_what_their_clients_wait_for() -> None:
    thinking = {"type": "response.reasoning_text.delta", "item_id": "rs_1", "delta": "hm"}
    started = {"type": "response.output_item.added", "item": {**THOUGHT, "content": [], "status": "in_progress"}}
    call = {"type": "response.output_item.added", "item": {**CALL, "arguments": "", "status": "in_progress"}}
    arguments = {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '{"a":1}'}
    ends = [{"type": "response.output_item.done", "item": {**item}} for item in (THOUGHT, CALL)]
    events = translate([CREATED, PROGRESS, started, thinking, call, arguments, *ends, completed(THOUGHT, CALL)])
    assert kinds(events)[2:] == [
        *("output_item.added", "reasoning_text.delta", "output_item.added", "function_call_arguments.delta"),
        *("reasoning_text.done", "output_item.done", "function_call_arguments.done", "output_item.done", "completed"),
    ]
    assert [event["output_index"] for event in events[2:-1]] == [0, 0, 1, 1, 0, 0, 1, 1]


def test_what_the_engine_says_only_at_the_end_is_sent_as_a_delta_before_it() -> None:
    events = translate([CREATED, *text_start("He"), *TEXT_END, completed(MESSAGE)])
    assert [event["delta"] for event in events if "delta" in event] == ["He", "llo"]


def test_items_and_a_beginning_that_the_engine_left_out_are_added() -> None:
    """Its first token was not a complete character, and the whole call was known only when it had ended."""
    ends = [*TEXT_END, {"type": "response.output_item.done", "item": {**CALL}}]
    events = translate([*ends, completed(MESSAGE, CALL)])
    assert kinds(events)[:5] == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
    ]
    assert [event["delta"] for event in events if "delta" in event] == ["Hello", '{"a":1}']
    assert {event["response"]["id"] for event in events if "response" in event} == {"resp_r"}


@pytest.mark.parametrize(
    ("asked", "context", "cut"),
    [
        ({}, 0, False),
        ({"max_output_tokens": 4}, 0, False),
        ({"max_output_tokens": -1}, 9, False),
        ({"max_output_tokens": 3}, 0, True),
        ({"max_tokens": 3}, 0, True),
        ({}, 8, True),
    ],
)
def test_what_a_limit_cut_is_incomplete(asked: dict[str, Any], context: int, *, cut: bool) -> None:
    last = translate([CREATED, *text_start("Hello"), *TEXT_END, completed({**MESSAGE})], context, **asked)[-1]
    status, details = ("incomplete", {"reason": "max_output_tokens"}) if cut else ("completed", None)
    assert last["type"] == f"response.{status}"
    whole = translation(context, **asked).body(completed({**MESSAGE})["response"])
    Response.model_validate(whole)
    for response in (whole, last["response"]):
        assert (response["status"], response["incomplete_details"]) == (status, details)
        assert response["output"][0]["status"] == status


def test_a_long_request_is_not_repeated_with_each_step_of_its_prompt() -> None:
    step = {**PROGRESS, "prompt_progress": {"processed": 1}}
    events = translate([CREATED, PROGRESS, step, step], tools=[TOOL], instructions="x" * 10_000)
    assert len(str(events[1])) > 10_000
    assert all(len(str(event)) < 1500 for event in events[2:])


@pytest.mark.parametrize("other", [{"error": {"message": "m"}}, {"type": "error", "message": "m"}, {"type": 1}, {}])
def test_what_is_no_event_of_a_response_stays_as_it_is(other: dict[str, Any]) -> None:
    assert translation().events({**other}) == [other]
    assert translation().body({**other}) == other
