"""The official `openai` and `anthropic` clients against the real appliance: what they send works, what fails is typed.

All on the random model, whose answers say nothing. For tools and structured output it is steered: the engine holds it
to a grammar, and a bias makes it open a tool call at once and end soon.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pytest
from anthropic.types import MessageParam, ToolChoiceAnyParam, ToolParam
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from support.appliance import KEY, Appliance, running
from support.tiny_model import CHAT_TEMPLATE, SPECIAL, write_tiny_model

pytestmark = pytest.mark.engine

CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
MESSAGES: list[MessageParam] = [{"role": "user", "content": "Hi"}]
TOO_LONG = "x" * 3000  # a byte is a token of the random model, and its context is 512
COLOUR: dict[str, object] = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
PAINTED = ({"colour": "red"}, {"colour": "green"})
# Tool calls in the manner of Qwen and Hermes, in the marks that are single tokens of the random model.
TOOLS_TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools:
{%- for tool in tools %}
{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|im_start|>user
{{ message.content }}<|im_end|>
{% else %}<|im_start|>{{ message.role }}
{%- if message.content %}
{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
<PRE>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}<SUF>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LETTERS = ["--grammar", "root ::= [a-z] root"]
SMILES = ["--grammar", 'root ::= "\U0001f600" root']  # each is four tokens of the random model
END, OPEN_CALL = SPECIAL.index("</s>"), SPECIAL.index("<PRE>")
STEERING = [
    *("--logit-bias", f"{END}+200"),
    *("--logit-bias", f"{OPEN_CALL}+100"),
    # The tokenizer's blank before a text is three bytes here, which the grammar of a template does not expect.
    *("--override-kv", "tokenizer.ggml.add_space_prefix=bool:false"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Appliance]:
    overrides = named("tiny") | {"engine": {"extra_args": LETTERS}}
    with running(tmp_path_factory.mktemp("tiny"), model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_ready()
        yield appliance


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("steered")
    template = folder / "tools.jinja"
    template.write_text(TOOLS_TEMPLATE, encoding="utf-8")
    overrides = {
        "model": {"aliases": ["tiny"], "chat_template": str(template)},
        "engine": {"context_per_slot": 2048, "extra_args": STEERING},
    }
    with running(folder, model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_ready()
        yield appliance


@pytest.fixture
def client(tiny: Appliance) -> Iterator[openai.OpenAI]:
    with openai_client(tiny) as made:
        yield made


@pytest.fixture
def claude(tiny: Appliance) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(tiny) as made:
        yield made


def named(alias: str) -> dict[str, Any]:
    return {"model": {"aliases": [alias]}}


def openai_client(appliance: Appliance, key: str = KEY) -> openai.OpenAI:
    url = f"http://127.0.0.1:{appliance.gateway_port}/v1"
    return openai.OpenAI(api_key=key, base_url=url, max_retries=0, timeout=60)


def anthropic_client(appliance: Appliance, key: str = KEY) -> anthropic.Anthropic:
    url = f"http://127.0.0.1:{appliance.gateway_port}"
    return anthropic.Anthropic(api_key=key, base_url=url, max_retries=0, timeout=60)


# --- openai


def test_openai_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=8)
    assert answer.model == "tiny"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_openai_chat_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=8, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_openai_completions(client: openai.OpenAI) -> None:
    assert client.completions.create(model="tiny", prompt="x", max_tokens=4).choices[0].finish_reason == "length"
    with client.completions.create(model="tiny", prompt="x", max_tokens=4, stream=True) as stream:
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"


def test_openai_responses_stream_and_what_the_limit_cut(client: openai.OpenAI) -> None:
    """`responses.stream()` builds the response from its events, and needs each to say where it belongs."""
    with client.responses.stream(model="tiny", input="Hi", max_output_tokens=8) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    assert {"response.created", "response.output_text.delta"} <= {event.type for event in events}
    last = events[-1]  # get_final_response() takes none that is incomplete, from OpenAI neither
    assert last.type == "response.incomplete"
    built = last.response
    assert built.status == "incomplete"
    assert built.output_text == "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert built.incomplete_details is not None
    assert built.incomplete_details.reason == "max_output_tokens"
    assert client.responses.create(model="tiny", input="Hi", max_output_tokens=8).status == "incomplete"


def test_every_event_of_a_response_has_what_openais_models_require(client: openai.OpenAI) -> None:
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    with client.responses.with_streaming_response.create(
        model="tiny", input="Hi", max_output_tokens=8, stream=True, metadata={"a": "b"}, instructions="Be brief."
    ) as response:
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    events = [adapter.validate_json(line) for line in data if line != "[DONE]"]
    assert len(events) > 5
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")
    whole = client.responses.with_raw_response.create(
        model="tiny", input="Hi", max_output_tokens=8, metadata={"a": "b"}
    )
    assert Response.model_validate_json(whole.text).metadata == {"a": "b"}


def test_logprobs_of_completions_have_openais_older_shape(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt="Hi", max_tokens=4, logprobs=2)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.top_logprobs is not None
    assert "".join(logprobs.tokens) == whole.choices[0].text
    assert logprobs.token_logprobs is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 4
    offsets = []
    for part in client.completions.create(model="tiny", prompt="Hi", max_tokens=4, logprobs=2, stream=True):
        for choice in part.choices:
            if choice.logprobs is not None:
                offsets += choice.logprobs.text_offset or []
    assert offsets == logprobs.text_offset == [0, 1, 2, 3]


def test_openai_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="Hi", max_output_tokens=8)
    assert answer.status == "incomplete"
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens == 8
    with client.responses.create(model="tiny", input="Hi", max_output_tokens=8, stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.incomplete"
    assert "response.output_text.delta" in kinds


def test_openai_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("another")
    assert caught.value.code == "model_not_found"


def test_openai_embeddings(tmp_path: Path, tiny_model: Path) -> None:
    # A model made for embeddings says how it pools; this one has to be told.
    overrides = named("tiny") | {"engine": {"task": "embed", "pooling": "mean"}}
    with running(tmp_path, model=tiny_model, overrides=overrides) as appliance, openai_client(appliance) as client:
        appliance.wait_ready()
        # Left alone the client asks for base64; with "float" it gets lists. It must come to the same.
        packed = client.embeddings.create(model="tiny", input=["one", "two"])
        plain = client.embeddings.create(model="tiny", input=["one", "two"], encoding_format="float")
        assert [item.index for item in packed.data] == [0, 1]
        assert packed.usage.prompt_tokens == plain.usage.prompt_tokens > 0
        for ours, theirs in zip(packed.data, plain.data, strict=True):
            assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-6)
            assert len(ours.embedding) == 64


@pytest.mark.parametrize("stream", [False, True])
def test_openai_prompt_that_is_too_long(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="context size") as caught:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": TOO_LONG}], max_tokens=4, stream=stream
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.request_id


def test_openai_errors_are_the_clients_own_types(client: openai.OpenAI, tiny: Appliance) -> None:
    with openai_client(tiny, "sk-wrong-0123456789abcdef") as stranger, pytest.raises(openai.AuthenticationError) as no:
        stranger.chat.completions.create(model="tiny", messages=CHAT)
    assert (no.value.code, no.value.type) == ("invalid_api_key", "authentication_error")
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="tiny", messages=CHAT, max_tokens="four")  # type: ignore[call-overload]
    assert bad.value.code == "bad_request"
    with pytest.raises(openai.InternalServerError) as unable:
        client.embeddings.create(model="tiny", input="one")
    assert (unable.value.status_code, unable.value.code) == (501, "not_supported")
    with pytest.raises(openai.InternalServerError, match="audio") as deaf:
        client.audio.transcriptions.create(model="tiny", file=("a.wav", b"RIFF", "audio/wav"), prompt="hm")
    assert (deaf.value.status_code, deaf.value.code) == (501, "not_supported")
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.generate(prompt="a cat")
    assert missing.value.code == "not_found"


def test_openai_unknown_model_is_answered_by_the_one_there_is(client: openai.OpenAI, tiny: Appliance) -> None:
    """A key that may use every model is not held to a name; one that is limited to some models is."""
    answer = client.chat.completions.create(model="gpt-99", messages=CHAT, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    keys_file = str(tiny.folder / "data" / "keys.json")
    made = tiny.cli("keys", "generate", "--name", "one-model", "--models", "tiny", "--quiet", "--keys-file", keys_file)
    assert made.returncode == 0, made.stderr
    with openai_client(tiny, made.stdout.strip()) as limited:

        def known() -> bool:
            try:
                return bool(limited.models.list().data)
            except openai.AuthenticationError:
                return False

        tiny.wait_for(known, 5, "the new key is read")
        assert limited.chat.completions.create(model="tiny", messages=CHAT, max_tokens=2).choices
        with pytest.raises(openai.NotFoundError) as caught:
            limited.chat.completions.create(model="gpt-99", messages=CHAT, max_tokens=2)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_openai_structured_output(steered: Appliance) -> None:
    with openai_client(steered) as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Which colour has grass?"}],
            max_tokens=1000,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "colour", "strict": True, "schema": COLOUR},
            },
        )
    assert answer.choices[0].finish_reason == "stop"
    assert json.loads(answer.choices[0].message.content or "") in PAINTED


def test_openai_tools(steered: Appliance) -> None:
    tool: ChatCompletionToolParam = {
        "type": "function",
        "function": {"name": "paint", "description": "Paint it", "parameters": COLOUR},
    }
    choice: Literal["required"] = "required"
    asked = {
        "model": "tiny",
        "messages": tool_talk(),
        "tools": [tool],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 1000,
    }
    with openai_client(steered) as client:
        answer: Any = client.chat.completions.create(**asked)  # type: ignore[call-overload]
        assert answer.choices[0].finish_reason == "tool_calls"
        with client.chat.completions.create(**asked, stream=True) as stream:  # type: ignore[call-overload]
            chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    for call in answer.choices[0].message.tool_calls:
        assert call.id
        assert call.function.name == "paint"
        assert json.loads(call.function.arguments) in PAINTED
    deltas = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or [] if part.index == 0]
    assert deltas[0].id
    assert deltas[0].function.name == "paint"
    assert json.loads("".join(part.function.arguments for part in deltas)) in PAINTED


def tool_talk() -> list[dict[str, Any]]:
    """A talk in which a tool has been called and answered."""
    call = {"id": "call-1", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "red"}'}}
    return [
        {"role": "user", "content": "Paint it red"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "done"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "Paint it red"},
    ]


# --- anthropic


def test_anthropic_message(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="tiny", max_tokens=8, messages=MESSAGES)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "tiny")
    assert answer.stop_reason == "max_tokens"
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens == 8


def test_anthropic_stream(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="tiny", max_tokens=8, messages=MESSAGES) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert "content_block_delta" in kinds
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 8


def test_anthropic_stream_that_begins_with_half_a_character(tmp_path: Path, tiny_model: Path) -> None:
    """llama-server leaves message_start out of it, and without one the client gives up."""
    overrides = named("tiny") | {"engine": {"extra_args": SMILES}}
    with running(tmp_path, model=tiny_model, overrides=overrides) as appliance, anthropic_client(appliance) as claude:
        appliance.wait_ready()
        with claude.messages.stream(model="tiny", max_tokens=8, messages=MESSAGES) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert (final.model, final.usage.output_tokens) == ("tiny", 8)
    assert [block.text for block in final.content if block.type == "text"] == ["\U0001f600" * 2]


def test_anthropic_thinking_that_is_disabled_is_so_for_the_template(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}NO THOUGHTS{% endif %}"
    model = write_tiny_model(tmp_path / "tiny.gguf", chat_template=template)
    with running(tmp_path, model=model, overrides=named("tiny")) as made:
        made.wait_ready()
        with anthropic_client(made) as client:
            plain = client.messages.create(model="tiny", max_tokens=2, messages=MESSAGES).usage
            told = client.messages.create(
                model="tiny", max_tokens=2, messages=MESSAGES, thinking={"type": "disabled"}
            ).usage
    counts = [used.input_tokens + (used.cache_read_input_tokens or 0) for used in (plain, told)]
    assert counts[1] - counts[0] >= len("NO THOUGHTS")


def test_anthropic_count_tokens(claude: anthropic.Anthropic) -> None:
    few = claude.messages.count_tokens(model="tiny", messages=MESSAGES).input_tokens
    more = claude.messages.count_tokens(model="tiny", messages=[{"role": "user", "content": "Hi!you"}]).input_tokens
    assert more == few + len("!you")


def test_anthropic_bearer_token(tiny: Appliance) -> None:
    url = f"http://127.0.0.1:{tiny.gateway_port}"
    with anthropic.Anthropic(auth_token=KEY, base_url=url, max_retries=0) as client:
        assert client.messages.create(model="tiny", max_tokens=2, messages=MESSAGES).usage.output_tokens == 2


def test_anthropic_errors_have_their_own_shape(claude: anthropic.Anthropic, tiny: Appliance) -> None:
    stranger = anthropic_client(tiny, "sk-wrong-0123456789abcdef")
    with stranger, pytest.raises(anthropic.AuthenticationError) as no:
        stranger.messages.create(model="tiny", max_tokens=8, messages=MESSAGES)
    assert error_of(no.value)["type"] == "authentication_error"
    assert no.value.request_id
    too_long: list[MessageParam] = [{"role": "user", "content": TOO_LONG}]
    with pytest.raises(anthropic.BadRequestError, match="context size") as long:
        claude.messages.create(model="tiny", max_tokens=8, messages=too_long)
    assert error_of(long.value)["type"] == "invalid_request_error"
    assert error_of(long.value)["code"] == "context_length_exceeded"
    with (
        pytest.raises(anthropic.BadRequestError),
        claude.messages.stream(model="tiny", max_tokens=8, messages=too_long) as stream,
    ):
        stream.get_final_message()


def error_of(error: anthropic.APIStatusError) -> dict[str, Any]:
    body = error.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["request_id"] == error.request_id
    found: dict[str, Any] = body["error"]
    return found


def test_anthropic_tools(steered: Appliance) -> None:
    tool: ToolParam = {"name": "paint", "description": "Paint it", "input_schema": COLOUR}
    talk: list[MessageParam] = [
        {"role": "user", "content": "Paint it red"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "call-1", "name": "paint", "input": {"colour": "red"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call-1", "content": "done"}]},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "Paint it red"},
    ]
    choice: ToolChoiceAnyParam = {"type": "any", "disable_parallel_tool_use": True}
    with anthropic_client(steered) as client:
        answer = client.messages.create(model="tiny", max_tokens=1000, messages=talk, tools=[tool], tool_choice=choice)
        with client.messages.stream(
            model="tiny", max_tokens=1000, messages=talk, tools=[tool], tool_choice=choice
        ) as stream:
            streamed = stream.get_final_message()
    assert answer.stop_reason == streamed.stop_reason == "tool_use"
    for blocks in (answer.content, streamed.content):
        assert [block for block in blocks if block.type == "tool_use"]
    for block in [*answer.content, *streamed.content]:
        if block.type != "tool_use":
            continue
        assert block.name == "paint"
        assert block.input in PAINTED


def test_tools_for_a_model_whose_template_has_none(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    tool: ChatCompletionToolParam = {"type": "function", "function": {"name": "paint", "parameters": COLOUR}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=5, tools=[tool], tool_choice="required")
    assert refused.value.param == "tool_choice"
    offered = client.chat.completions.with_raw_response.create(model="tiny", messages=CHAT, max_tokens=5, tools=[tool])
    assert "chat template of this model has no tools" in offered.headers["warning"]
    own: ToolParam = {"name": "paint", "input_schema": COLOUR}
    with pytest.raises(anthropic.BadRequestError, match="no tools"):
        claude.messages.create(
            model="tiny", max_tokens=5, messages=MESSAGES, tools=[own], tool_choice={"type": "tool", "name": "paint"}
        )


def test_anthropic_parse_is_told_what_to_use_instead(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"output_config\.format.*response_format"):
        claude.messages.parse(model="tiny", max_tokens=5, messages=MESSAGES, output_format=dict[str, str])


def test_openai_responses_in_the_form_that_was_asked_for(steered: Appliance) -> None:
    with openai_client(steered) as client:
        answer = client.responses.create(
            model="tiny",
            input="Paint",
            max_output_tokens=200,
            text={"format": {"type": "json_schema", "name": "colour", "schema": COLOUR, "strict": True}},
        )
    assert answer.status == "completed"
    assert json.loads(answer.output_text) in PAINTED
