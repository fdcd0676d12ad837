"""Requests that reach the engine: which models and fields a key may use, and what an upload costs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llama_gguf.gateway.api.multipart import read_form
from llama_gguf.rundir import engine_reduction
from llama_gguf.rundir.engine_reduction import EngineReduction
from llama_gguf.states import EngineState
from support.gateway_box import ADMIN_KEY, KEY, default_keys, key_record
from support.http_client import Answer, read_answer, request_bytes
from support.running_gateway import Running, Start, body_of, chat

TYPE = "multipart/form-data; boundary=B"


def upload(file: bytes = b"RIFF", **fields: str) -> bytes:
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    return b"".join([*parts, b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n', file, b"\r\n--B--\r\n"])


async def transcribe(running: Running, body: bytes, media_type: str = TYPE) -> Answer:
    return await running.ask("POST", "/v1/audio/transcriptions", body=body, headers={"Content-Type": media_type})


async def test_the_engine_gets_the_file_and_only_fields_that_were_looked_at(start: Start) -> None:
    running = await start(tokens=5)
    answer = await transcribe(running, upload(b"\x00\xff" * 4096, model="tiny", prompt="hm", grammar="x"))
    assert answer.status == 200
    seen = running.engine.asked[0]
    form = read_form(seen.body, seen.headers["content-type"].encode())
    assert (form.fields, form.file) == ({"model": "tiny", "prompt": "hm"}, b"\x00\xff" * 4096)
    assert seen.headers["content-type"] != TYPE
    line = (await running.lines())[0]
    assert (line["route"], line["model"], line["tokens_out"]) == ("/v1/audio/transcriptions", "tiny", 5)


async def test_what_is_no_upload_is_400(running: Running) -> None:
    for body, media_type in ((b"{}", "application/json"), (b"x", TYPE), (upload(max_tokens="x"), TYPE)):
        answer = await transcribe(running, body, media_type)
        assert (answer.status, answer.error["code"]) == (400, "bad_request")
    assert not running.engine.asked


async def test_a_model_that_cannot_hear_says_so_before_the_upload_is_judged(start: Start) -> None:
    running = await start({"model": {"mmproj": None}})
    for body, media_type in (
        (upload(), TYPE),
        (b"x", TYPE),
        (b"{}", "application/json"),
        (upload(model="other"), TYPE),
    ):
        answer = await transcribe(running, body, media_type)
        assert (answer.status, answer.error["code"]) == (501, "not_supported")
        assert "audio" in answer.error["message"]
        assert answer.headers["x-should-retry"] == "false"
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + KEY.encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(head + b"\r\nContent-Length: 5000000\r\n\r\n")
    assert (await read_answer(reader)).status == 501  # without any of its body
    writer.close()
    assert (await running.ask("POST", "/v1/audio/transcriptions", key=None, body=b"")).status == 401
    assert not running.engine.asked


async def test_a_key_may_use_only_its_models(start: Start) -> None:
    running = await start({"model": {"aliases": ["a", "b"]}})
    running.box.write_keys([key_record("tester", KEY, models=("a",))])
    await running.gateway.keys.reload_now()
    assert (await transcribe(running, upload(model="a"))).status == 200
    for model in ("b", "c"):
        answer = await transcribe(running, upload(model=model))
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_limits_hold_for_uploads(start: Start) -> None:
    running = await start({"gateway": {"max_body_bytes": 2048}, "limits": {"tokens_per_minute": 1000}})
    assert (await transcribe(running, upload(b"x" * 4096))).status == 413
    refused = await transcribe(running, upload(max_tokens="1001"))
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert (await transcribe(running, upload(max_tokens="900"))).status == 200


async def test_an_upload_that_was_left_is_charged_no_more_than_was_reserved(start: Start) -> None:
    """Its size tells little of its tokens."""
    running = await start(hang_after=-1, book=False)
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    body, headers = upload(b"x" * 100_000, max_tokens="50"), {"Content-Type": TYPE}
    writer.write(request_bytes("POST", "/v1/audio/transcriptions", body=body, headers=headers))
    await running.until(lambda: bool(running.engine.asked))
    writer.close()
    line = (await running.lines())[0]
    assert line["tokens_in"] == -(-100_000 // 1024) + 50


@pytest.mark.parametrize("streams", ["true", "false"])
async def test_a_form_asks_for_a_stream_with_the_word_true(running: Running, streams: str) -> None:
    await transcribe(running, upload(stream=streams))
    assert (await running.lines())[0]["stream"] is (streams == "true")


async def test_the_group_can_be_closed(start: Start) -> None:
    running = await start({"gateway": {"routes": ["chat"]}})
    assert (await transcribe(running, upload())).status == 404


async def test_a_key_sees_and_uses_only_its_models(start: Start) -> None:
    running = await start({"model": {"aliases": ["a", "b"]}})
    await asyncio.to_thread(running.box.write_keys, [key_record("k", KEY, models=("b",))])
    await running.gateway.keys.reload_now()
    assert [entry["id"] for entry in (await running.ask("GET", "/v1/models")).json()["data"]] == ["b"]
    assert (await running.ask("GET", "/v1/models/a")).status == 404
    assert (await running.ask("POST", "/v1/chat/completions", body={**chat(), "model": "a"})).status == 404
    assert (await running.ask("POST", "/v1/chat/completions", body={**chat(), "model": "b"})).status == 200


async def test_rate_limit_headers_are_on_every_answer_of_a_key(start: Start) -> None:
    running = await start({"limits": {"requests_per_minute": 5, "tokens_per_minute": 1000}})
    first = await running.chat()
    assert first.headers["x-ratelimit-limit-requests"] == "5"
    assert first.headers["x-ratelimit-remaining-requests"] == "4"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert (await running.stream()).headers["x-ratelimit-remaining-requests"] == "3"
    assert (await running.chat(status=400)).headers["x-ratelimit-remaining-requests"] == "2"
    assert (await running.chat(die_after=-1)).headers["x-ratelimit-remaining-requests"] == "1"
    assert (await running.ask("GET", "/v1/models")).headers["x-ratelimit-remaining-requests"] == "0"
    refused = await running.chat()
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_defect_behind_a_complete_response_costs_no_slot_and_adds_nothing_to_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    running = await start({"engine": {"slots": 1}})
    limiter = running.gateway.limiter
    settle, calls = limiter.settle, []

    def fails_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError("a defect")
        return settle(*arguments)

    monkeypatch.setattr(limiter, "settle", fails_once)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for _ in range(2):  # on one connection, so whatever follows the first response would be read as the second
        writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(stream=stream)))
        answer = await read_answer(reader)
        assert answer.status == 200
        assert (b"[DONE]" in answer.body) is stream
    writer.close()
    assert running.gateway.backends.first.admission.active == 0
    assert len(calls) == 2
    assert "a defect" in caplog.text


async def test_the_first_request_while_there_are_several_keys_asks_what_the_engine_can_do(start: Start) -> None:
    """It asks in the middle of itself, before anything has made it a task."""
    running = await start()
    running.box.write_keys([key_record("one", KEY), key_record("two", f"{KEY[:-1]}Z")])
    await running.gateway.keys.reload_now()
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    for _ in range(2):
        assert (await running.chat()).status == 200
    assert [seen.target for seen in running.engine.seen].count("/usage?id=") == 1


CAPS = {"chat_template_caps": {"supports_tools": False, "supports_tool_calls": False}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FLAT = {"type": "function", "name": "f", "parameters": {"type": "object"}}
REQUESTS: dict[str, tuple[dict[str, Any], object]] = {
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": "hi"}], "tools": [FUNCTION]}, "required"),
    "/v1/responses": ({"input": "hi", "tools": [FLAT]}, "required"),
    "/v1/messages": (
        {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "tools": [{"name": "f"}]},
        {"type": "any"},
    ),
}


async def with_tools(running: Running, path: str, **more: object) -> Answer:
    return await running.ask("POST", path, body=json.dumps({**REQUESTS[path][0], **more}).encode())


@pytest.mark.parametrize("path", REQUESTS)
async def test_tools_for_a_template_without_any_are_refused_or_told(start: Start, path: str) -> None:
    running = await start(props=CAPS)
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    answer = await with_tools(running, path, tool_choice=REQUESTS[path][1])
    assert answer.status == 400
    assert "`tool_choice` cannot be met" in answer.error["message"]
    assert [seen.target for seen in running.engine.asked] == ["/props"]
    answer = await with_tools(running, path)
    assert answer.status == 200
    assert "the chat template of this model has no tools" in answer.headers["warning"]
    assert [seen.target for seen in running.engine.seen].count("/props") == 1


@pytest.mark.parametrize("path", REQUESTS)
async def test_an_engine_that_says_nothing_of_its_template_gets_the_tools(start: Start, path: str) -> None:
    running = await start()
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    answer = await with_tools(running, path, tool_choice=REQUESTS[path][1])
    assert (answer.status, "warning" in answer.headers) == (200, False)


async def test_an_engine_without_props_is_asked_once(start: Start) -> None:
    running = await start(knows_props=False)
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    for path, (_, choice) in REQUESTS.items():
        assert (await with_tools(running, path, tool_choice=choice)).status == 200
    assert [seen.target for seen in running.engine.seen].count("/props") == 1


async def test_a_request_without_tools_does_not_ask(running: Running) -> None:
    assert (await running.chat()).status == 200
    assert "/props" not in [seen.target for seen in running.engine.seen]


async def test_while_the_engine_loads_tools_wait_like_others(start: Start) -> None:
    running = await start(props=CAPS, loading_seconds=3600)
    waiting = asyncio.create_task(with_tools(running, "/v1/chat/completions"))
    await running.until(lambda: running.gateway.backends.first.admission.active == 1)
    running.engine.ready_at = 0.0
    assert (await waiting).status == 200


@pytest.mark.parametrize("task", ["embed", "rerank"])
async def test_a_model_that_generates_no_text_says_so_before_it_reads_the_body(start: Start, task: str) -> None:
    """llama-server answers such requests with noise."""
    running = await start({"engine": {"task": task}})
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/infill"):
        answer = await running.ask("POST", path, body=body_of(path))
        assert answer.status == 501
        assert "engine.task" in answer.body.decode()
    assert running.engine.asked == []
    assert (await running.ask("POST", "/v1/embeddings", body={"input": "a"})).status == 200


async def test_bodies_that_are_refused_count_as_requests(start: Start) -> None:
    """Forty of forty were read and refused at a limit of five a minute."""
    running = await start({"limits": {"requests_per_minute": 5}})
    statuses = []
    for number in range(40):
        body = b'{"messages": ' if number % 2 else {"messages": [{"role": "user"}]}
        statuses.append((await running.ask("POST", "/v1/chat/completions", body=body)).status)
    assert statuses == [400] * 5 + [429] * 35
    assert running.engine.asked == []


BOUNDS: list[tuple[str, dict[str, Any], str]] = [
    ("max_choices", {"n": 2}, "n"),
    ("max_stops", {"stop": ["a", "b"]}, "stop"),
    ("max_tools", {"tools": [{"type": "function", "function": {"name": name}} for name in "ab"]}, "tools"),
    ("max_schema_depth", {"json_schema": {"items": {"items": {}}}}, "json_schema"),
    ("max_schemas", {"json_schema": {"items": {"items": {}}}}, "json_schema"),
    ("max_probabilities", {"logprobs": True, "top_logprobs": 2}, "top_logprobs"),
    ("max_probabilities", {"n_probs": 2}, "n_probs"),
    ("max_logit_bias", {"logit_bias": {"1": 1, "2": 1}}, "logit_bias"),
    ("max_grammar_characters", {"grammar": "root ::= x"}, "grammar"),
]


@pytest.mark.parametrize(("setting", "more", "param"), BOUNDS)
async def test_a_setting_lowers_each_bound(start: Start, setting: str, more: dict[str, Any], param: str) -> None:
    running = await start({"limits": {"request": {setting: 1}}})
    answer = await running.ask("POST", "/v1/chat/completions", body={**chat(), **more})
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_a_setting_lowers_the_depth_of_bodies(start: Start) -> None:
    running = await start({"limits": {"request": {"max_nesting": 8}}})
    nested: Any = 1
    for _ in range(8):
        nested = [nested]
    answer = await running.ask("POST", "/v1/chat/completions", body={**chat(), "metadata": {"a": nested}})
    assert answer.status == 400
    assert "deeper than 8" in answer.error["message"]


async def test_counting_has_a_small_place_of_its_own_and_a_slot_is_free_meanwhile(start: Start) -> None:
    running = await start()
    running.engine.default["delay"] = 30
    counting = [asyncio.create_task(running.ask("POST", "/tokenize", body={"content": "a"})) for _ in range(8)]
    await running.until(lambda: len(running.engine.asked) == 2)
    await running.until(lambda: running.gateway.backends.first.counting.waiting == 6)
    running.engine.default["delay"] = 0
    assert (await running.chat()).status == 200
    assert (await running.ask("GET", "/slots", key=ADMIN_KEY)).status == 200
    assert len([seen for seen in running.engine.asked if seen.target == "/tokenize"]) == 2
    for task in counting:
        task.cancel()
    await asyncio.gather(*counting, return_exceptions=True)
    await running.until(
        lambda: running.gateway.backends.first.counting.waiting == running.gateway.backends.first.counting.active == 0
    )
    assert (await running.ask("POST", "/tokenize", body={"content": "a"})).status == 200


async def test_a_refusal_for_concurrency_is_counted_and_the_gateways_own_routes_are_no_request_of_a_key(
    start: Start,
) -> None:
    running = await start({"auth": {"enabled": False}, "limits": {"concurrency": 1}})
    running.engine.default["delay"] = 30
    held = asyncio.create_task(running.chat())
    await running.until(lambda: len(running.engine.asked) == 1)
    assert (await running.chat()).status == 429
    metrics = await running.ask("GET", "/metrics", key=None)
    assert metrics.status == 200
    counted = [line for line in metrics.body.decode().splitlines() if "limited_requests_total{" in line]
    assert len(counted) == 1
    assert 'limit="concurrency"' in counted[0]
    assert counted[0].endswith(" 1.0")
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)


# --- the rules of a key ---------------------------------------------------------------------------------------------

CAPPED = "sk-test-capped-0000000000000000000"
GENERATING = ("/v1/chat/completions", "/v1/completions", "/completion", "/v1/responses", "/v1/messages", "/infill")
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")


async def start_capped(start: Start, changes: dict[str, Any] | None = None, **rules: Any) -> Running:
    running = await start(changes or {})
    running.box.write_keys((*default_keys(), key_record("capped", CAPPED, **rules)))
    await running.gateway.reload_keys()
    return running


async def engine_body(running: Running, path: str, **changes: Any) -> tuple[Answer, dict[str, Any]]:
    """Make a request; return the response, and the body that the engine got ({} if none)."""
    before = len(running.engine.asked)
    answer = await running.ask("POST", path, body=body_of(path) | changes, key=CAPPED)
    asked = [seen for seen in running.engine.asked[before:] if seen.method == "POST"]
    return answer, json.loads(asked[0].body) if asked else {}


@pytest.mark.parametrize("path", GENERATING)
async def test_a_keys_cap_holds_on_every_route_and_in_every_spelling(start: Start, path: str) -> None:
    running = await start_capped(start, max_output_tokens=20)
    tried: list[dict[str, Any]] = [{}, {"n_ctx": 1}]
    for name in LENGTHS:
        tried += [{name: value} for value in (21, 10**9, 2**31 - 1, 2**63, -1, -2, 10**30, None, True, "99", 1.5, [1])]
    tried.append(dict.fromkeys(LENGTHS, 500))
    for changes in tried:
        answer, body = await engine_body(running, path, **changes)
        if answer.status != 200:
            assert answer.status == 400, changes
            assert not body
            continue
        found = [body[name] for name in LENGTHS if name in body]
        assert found, changes
        assert all(type(value) is int and 0 <= value <= 20 for value in found), (changes, body)


async def test_an_uploads_length_is_capped_too(start: Start) -> None:
    running = await start_capped(start, max_output_tokens=20)
    for asked in (None, "21", "999999999", "7"):
        headers = {"Content-Type": TYPE}
        body = upload(model="tiny") if asked is None else upload(model="tiny", max_tokens=asked)
        answer = await running.ask("POST", "/v1/audio/transcriptions", body=body, headers=headers, key=CAPPED)
        assert answer.status == 200
        seen = running.engine.asked[-1]
        form = read_form(seen.body, seen.headers["content-type"].encode())
        assert form.max_tokens == min(20, int(asked or 20))
        told = answer.headers.get("x-changed-parameters")
        assert told == (None if form.max_tokens == 7 else "max_tokens")


async def test_the_lower_of_model_and_key_holds_and_defaults_do_not_lift_it(start: Start) -> None:
    variant = {"max_output_tokens": 15, "defaults": {"max_tokens": 999, "min_p": 0.3, "temperature": 0.9}}
    model = {"max_output_tokens": 30, "variants": {"tiny-short": variant}}
    running = await start_capped(
        start,
        {"model": model},
        max_output_tokens=20,
        defaults={"max_tokens": 9999, "temperature": 0.1},
        strip=("seed",),
    )
    answer, body = await engine_body(running, "/v1/completions", max_tokens=None, seed=5)
    assert (body["max_tokens"], body["temperature"], "seed" in body) == (20, 0.1, False)
    assert set(answer.headers["x-changed-parameters"].split(", ")) == {"seed", "max_tokens", "temperature"}
    _, body = await engine_body(running, "/v1/completions", model="tiny-short", max_tokens=500)
    assert (body["max_tokens"], body["temperature"], body["min_p"]) == (15, 0.1, 0.3)
    line = (await running.lines(2))[-1]
    assert "max_tokens" in json.dumps(line)


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"thinking_budget_tokens": 9000}),
        ("/v1/chat/completions", {"reasoning_budget_tokens": -1}),
        ("/v1/chat/completions", {"reasoning_format": "none", "reasoning_effort": "high"}),
        ("/v1/responses", {"reasoning": {"effort": "high"}}),
        ("/v1/messages", {}),
        ("/v1/messages", {"thinking": {"type": "enabled"}}),
        ("/v1/messages", {"thinking": {"type": "adaptive"}}),
        ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": "9000"}}),
        ("/v1/messages", {"thinking": {"type": "disabled"}}),
    ],
)
async def test_a_keys_cap_of_reasoning_holds(start: Start, path: str, changes: dict[str, Any]) -> None:
    running = await start_capped(start, max_reasoning_tokens=10)
    answer, body = await engine_body(running, path, **changes)
    assert answer.status == 200
    if path == "/v1/messages":
        assert body["thinking"]["type"] == "enabled"
        assert 0 <= body["thinking"]["budget_tokens"] <= 10
    else:
        given = [body[name] for name in ("reasoning_budget_tokens", "thinking_budget_tokens") if name in body]
        assert given == [10]


async def test_other_keys_are_not_touched_and_an_admins_cap_holds_too(start: Start) -> None:
    running = await start_capped(start, max_output_tokens=20, scopes=frozenset({"inference", "admin"}))
    assert (await running.ask("POST", "/v1/completions", body=body_of("/v1/completions"))).status == 200
    assert json.loads(running.engine.asked[-1].body)["max_tokens"] == 16
    answer = await running.ask("POST", "/v1/completions", body=body_of("/v1/completions") | {"max_tokens": 99})
    assert (json.loads(running.engine.asked[-1].body)["max_tokens"], answer.status) == (99, 200)
    _, body = await engine_body(running, "/v1/completions", max_tokens=99)
    assert body["max_tokens"] == 20


# --- an engine that has less than configured, after it ran out of memory ---------------------------------------------

SHRINK = {"engine": {"slots": 4, "context_per_slot": 4096, "shrink": {"steps": ["slots", "context"]}}}


async def start_reduced(start: Start, values: dict[str, int | str] | bytes, **changes: Any) -> Running:
    running = await start(SHRINK | changes, loading_seconds=0.5)
    path = running.box.shot.locations.run.engine_reduction
    if isinstance(values, bytes):
        await asyncio.to_thread(path.write_bytes, values)
    else:
        await asyncio.to_thread(engine_reduction.write, EngineReduction(values), path)
    await running.until(lambda: running.gateway.backends.first.engine.state == "ready")
    return running


async def test_no_more_is_let_in_than_the_engine_has_slots(start: Start) -> None:
    running = await start_reduced(start, {"slots": 2, "context_per_slot": 2048})
    asked = [asyncio.create_task(running.chat(delay=0.3)) for _ in range(6)]
    backend = running.gateway.backends.first
    most = 0
    while not all(task.done() for task in asked):
        most = max(most, backend.admission.active)
        await asyncio.sleep(0.01)
    assert {task.result().status for task in asked} == {200}
    assert most == 2
    assert (await running.ask("GET", "/health")).json()["queue"]["max"] == 2
    (model,) = (await running.ask("GET", "/v1/models")).json()["data"]
    assert model["context"] == 2048


async def test_what_came_before_the_engine_had_fewer_slots_gets_an_answer(start: Start) -> None:
    """It holds more slots than there are now; nobody waits for ever, before or behind it."""
    running = await start(SHRINK, loading_seconds=0.5)
    path = running.box.shot.locations.run.engine_reduction
    await asyncio.to_thread(engine_reduction.write, EngineReduction({"slots": 1}), path)
    several = body_of("/v1/completions") | {"n": 3}
    early = [asyncio.create_task(running.ask("POST", "/v1/completions", body=several)) for _ in range(4)]
    assert {(await task).status for task in early} == {200}
    assert (await running.chat()).status == 200
    refused = await running.ask("POST", "/v1/completions", body=several)
    assert (refused.status, refused.error["param"]) == (400, "n")
    assert "1, the slots that the engine has now" in refused.error["message"]


@pytest.mark.parametrize("name", ["n", "n_cmpl"])
async def test_choices_are_as_many_as_the_slots_that_are_left(start: Start, name: str) -> None:
    running = await start_reduced(start, {"slots": 2})
    before = len(running.engine.asked)
    refused = await running.ask("POST", "/v1/completions", body=body_of("/v1/completions") | {name: 3})
    assert (refused.status, refused.error["param"]) == (400, name)
    assert len(running.engine.asked) == before
    assert (await running.ask("POST", "/v1/completions", body=body_of("/v1/completions") | {name: 2})).status == 200


async def test_more_prompts_than_slots_that_are_left_go_in_parts(start: Start) -> None:
    running = await start_reduced(start, {"slots": 2})
    before = len(running.engine.asked)
    body = body_of("/v1/completions") | {"prompt": ["a", "b", "c"]}
    assert (await running.ask("POST", "/v1/completions", body=body)).status == 200
    parts = [json.loads(seen.body)["prompt"] for seen in running.engine.asked[before:] if seen.method == "POST"]
    assert [len(part) if isinstance(part, list) else 1 for part in parts] == [2, 1]


@pytest.mark.parametrize(
    "values", [{}, {"cache_type_k": "q8_0"}, {"slots": 0}, {"slots": -1}, {"slots": "2"}, b"{broken", b'{"values": []}']
)
async def test_a_record_without_usable_slots_changes_nothing(start: Start, values: Any) -> None:
    running = await start_reduced(start, values)
    backend = running.gateway.backends.first
    assert (backend.admission.capacity, backend.context) == (4, 4096)
    assert (await running.chat()).status == 200


async def test_fewer_in_flight_than_slots_stay_fewer(start: Start) -> None:
    limits = {"max_in_flight": 1, "requests_per_minute": None}
    running = await start_reduced(start, {"slots": 2}, limits=limits)
    assert running.gateway.backends.first.admission.capacity == 1
