"""What a request means: done as its client expects, refused where that cannot be, and told where it is changed. Pure.

Called with a body whose top-level fields have been checked against their types; everything within them is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llama_gguf.gateway.request.anthropic_messages import check_anthropic_messages
from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.history import check_chat_messages
from llama_gguf.gateway.request.media import MediaCheck, MediaRules
from llama_gguf.gateway.request.refusal import kind, quoted, refusal
from llama_gguf.gateway.request.responses_input import check_responses_input
from llama_gguf.gateway.request.schemas import SchemaLimits, check_schema
from llama_gguf.gateway.request.stop import drop_blank_stops
from llama_gguf.gateway.request.token_ids import TokenIdRule, check_token_ids
from llama_gguf.gateway.request.tools import check_chat_tools, check_messages_tools, check_responses_tools

_TOOL_FIELDS = ("tools", "tool_choice", "functions", "function_call")


@dataclass(frozen=True, slots=True)
class MeaningRules:
    """What this box can do, and what its operator allows."""

    media: MediaRules
    schemas: SchemaLimits
    token_ids: TokenIdRule
    max_tools: int


def check_meaning(group: str, body: dict[str, Any], rules: MeaningRules, changes: Changes) -> None:
    """Check the body of a request of a route group, and change it in place. Raises GatewayError 400."""
    if group == "chat":
        _check_chat(body, rules, changes)
    elif group == "messages":
        check_anthropic_messages(body, MediaCheck(rules.media))
        if "tools" in body or "tool_choice" in body:
            check_messages_tools(body, changes)
            _check_tool_schemas(body, rules, changes)
        if "stop_sequences" in body:
            drop_blank_stops(body, "stop_sequences", changes)
    elif group == "responses":
        check_responses_input(body, MediaCheck(rules.media), changes)
        if "tools" in body or "tool_choice" in body:
            check_responses_tools(body, changes)
            _check_tool_schemas(body, rules, changes)
        _check_text_format(body, rules, changes)
    elif group in ("completions", "infill"):
        _check_completion(body, rules, changes)
    elif group == "embeddings":
        for name in ("input", "content"):
            if name in body:
                check_token_ids(body, name, rules.token_ids, changes)


def _check_chat(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> None:
    check_chat_messages(body.get("messages"), MediaCheck(rules.media), changes)
    if len(body) < 3:
        return  # a model and messages
    if any(name in body for name in _TOOL_FIELDS):
        check_chat_tools(body, changes)
        _check_tool_schemas(body, rules, changes)
    if "stop" in body:
        drop_blank_stops(body, "stop", changes)
    if body.get("response_format") is not None:
        _check_response_format(body["response_format"], rules, changes)
    if isinstance(body.get("json_schema"), dict):
        check_schema(body["json_schema"], "json_schema", rules.schemas, changes, strict=False)


def _check_tool_schemas(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> None:
    tools = body.get("tools") or []
    if len(tools) > rules.max_tools:
        raise refusal("tools", f"must not have more than {rules.max_tools} tools.")
    for index, tool in enumerate(tools):
        inner, path = (
            (tool["function"], f"tools[{index}].function") if "function" in tool else (tool, f"tools[{index}]")
        )
        for name in ("parameters", "input_schema"):
            if isinstance(inner.get(name), dict):
                strict = inner.get("strict") is True
                check_schema(inner[name], f"{path}.{name}", rules.schemas, changes, strict=strict)


def _check_response_format(value: object, rules: MeaningRules, changes: Changes) -> None:
    path = "response_format"
    if not isinstance(value, dict):
        raise refusal(path, f"must be an object, not {kind(value)}.")
    form = value.get("type")
    if form == "json_schema":
        wrapper = value.get("json_schema")
        if not isinstance(wrapper, dict):
            raise refusal(f"{path}.json_schema", "is missing." if wrapper is None else "must be an object.")
        if wrapper.get("schema") is None:
            raise refusal(f"{path}.json_schema.schema", "is missing.")
        strict = wrapper.get("strict") is True
        check_schema(wrapper["schema"], f"{path}.json_schema.schema", rules.schemas, changes, strict=strict)
    elif form == "json_object":
        if value.get("schema") is not None:
            check_schema(value["schema"], f"{path}.schema", rules.schemas, changes, strict=False)
    elif form != "text":
        raise refusal(f"{path}.type", f"must be text, json_object or json_schema, not {quoted(form)}.")


def _check_text_format(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> None:
    """Check `text.format` of the Responses API."""
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    if form is None:
        return
    if not isinstance(form, dict):
        raise refusal("text.format", f"must be an object, not {kind(form)}.")
    if form.get("type") == "json_schema":
        strict = form.get("strict") is True
        check_schema(form.get("schema"), "text.format.schema", rules.schemas, changes, strict=strict)
    elif form.get("type") not in ("text", "json_object"):
        raise refusal("text.format.type", f"must be text, json_object or json_schema, not {quoted(form.get('type'))}.")


def _check_completion(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> None:
    if "stop" in body:
        drop_blank_stops(body, "stop", changes)
    if isinstance(body.get("json_schema"), dict):
        check_schema(body["json_schema"], "json_schema", rules.schemas, changes, strict=False)
    if body.get("response_format") is not None:
        _check_response_format(body["response_format"], rules, changes)
    prompt = body.get("prompt")
    media = MediaCheck(rules.media)
    for index, item in enumerate(prompt if isinstance(prompt, list) else [prompt]):
        if isinstance(item, dict) and item.get("multimodal_data") is not None:
            path = f"prompt[{index}].multimodal_data" if isinstance(prompt, list) else "prompt.multimodal_data"
            if not isinstance(item["multimodal_data"], list):
                raise refusal(path, f"must be a list, not {kind(item['multimodal_data'])}.")
            for number, data in enumerate(item["multimodal_data"]):
                media.base64_item(data, f"{path}[{number}]")
