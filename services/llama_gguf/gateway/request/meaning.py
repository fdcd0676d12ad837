"""What a request means: done as its client expects, refused where that cannot be, and told where it is changed. Pure.

Called with a body whose top-level fields have been checked against their types; everything within them is checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.constraints.grammars import check_grammar
from llama_gguf.gateway.request.constraints.schemas import SchemaLimits, check_schema
from llama_gguf.gateway.request.content.anthropic_messages import check_anthropic_messages
from llama_gguf.gateway.request.content.history import check_chat_messages
from llama_gguf.gateway.request.content.media import MediaCheck, MediaRules
from llama_gguf.gateway.request.content.prompts import check_text_list, count_prompts
from llama_gguf.gateway.request.content.responses_input import check_responses_input
from llama_gguf.gateway.request.content.stop import drop_blank_stops
from llama_gguf.gateway.request.content.token_ids import TokenIdRule, check_token_ids
from llama_gguf.gateway.request.content.tools import check_chat_tools, check_messages_tools, check_responses_tools
from llama_gguf.gateway.request.refusal import kind, quoted, refusal

_MAX_WORD = 256
# What the engine gives a template itself: by another value a client would get around the checks of its messages.
_TEMPLATE_NAMES = frozenset({"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"})
_TOOL_FIELDS = frozenset({"tools", "tool_choice", "functions", "function_call"})
_RARE = frozenset({"stop", "json_schema", "response_format"})
_CHAT_RARE = _TOOL_FIELDS | _RARE | {"modalities"}
_PROBABILITIES = frozenset({"n_probs", "top_logprobs", "logprobs"})  # the last is true or false in a chat
_ANYWHERE_RARE = frozenset({"grammar", "logit_bias", "chat_template_kwargs"}) | _PROBABILITIES


@dataclass(frozen=True, slots=True)
class MeaningRules:
    """What this box can do, and what its operator allows."""

    media: MediaRules
    schemas: SchemaLimits
    token_ids: TokenIdRule
    max_tools: int
    max_stops: int
    max_inputs: int
    max_probabilities: int = 100
    max_logit_bias: int = 1024
    max_grammar_characters: int = 65_536


def check_meaning(group: str, body: dict[str, Any], rules: MeaningRules, changes: Changes) -> int:
    """Check the body of a request of a route group, change it in place, and return its number of prompts or inputs.

    Raises GatewayError 400.
    """
    check = _CHECKS.get(group)
    if check is None:
        return 1
    prompts = check(body, rules, changes)
    if _ANYWHERE_RARE.isdisjoint(body):
        return prompts
    for name in _PROBABILITIES & body.keys():
        if body[name] > rules.max_probabilities:
            raise refusal(name, f"must not be more than {rules.max_probabilities}.")
    if "grammar" in body:
        if len(body["grammar"]) > rules.max_grammar_characters:
            raise refusal("grammar", f"must not have more than {rules.max_grammar_characters} characters.")
        check_grammar(body["grammar"], "grammar")
    if "logit_bias" in body:
        if len(body["logit_bias"]) > rules.max_logit_bias:
            raise refusal("logit_bias", f"must not have more than {rules.max_logit_bias} entries.")
        _check_logit_bias(body["logit_bias"])
    if "chat_template_kwargs" in body:
        for name in _TEMPLATE_NAMES & body["chat_template_kwargs"].keys():
            raise refusal(f"chat_template_kwargs.{name}", "is set by the server from the request's own fields.")
    return prompts


def _check_messages(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> int:
    check_anthropic_messages(body, MediaCheck(rules.media))
    if "tools" in body or "tool_choice" in body:
        check_messages_tools(body, changes)
        _check_tool_schemas(body, rules, changes)
    if "thinking" in body:
        _apply_thinking(body, changes)
    if "stop_sequences" in body:
        _check_stops(body, "stop_sequences", rules, changes)
    return 1


def _apply_thinking(body: dict[str, Any], changes: Changes) -> None:
    """Disable thinking where a request of Anthropic's API does: llama-server reads only that it is enabled."""
    if body["thinking"].get("type") != "disabled":
        return
    options = body.setdefault("chat_template_kwargs", {})
    if "enable_thinking" not in options:
        options["enable_thinking"] = False
        changes.changed = True


def _check_responses(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> int:
    check_responses_input(body, MediaCheck(rules.media), changes)
    if "tools" in body or "tool_choice" in body:
        check_responses_tools(body, changes)
        _check_tool_schemas(body, rules, changes)
    _check_generation(body, rules, changes)
    if "text" in body:
        _apply_text_format(body, rules, changes)
    return 1


def _check_embeddings(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> int:
    name = "content" if "content" in body and "input" not in body else "input"
    if name not in body:
        raise refusal("input", "is missing.")
    if "dimensions" in body:
        raise refusal("dimensions", "is not supported: the vectors have as many dimensions as the model gives them.")
    check_token_ids(body, name, rules.token_ids, changes)
    return count_prompts(body[name], name, MediaCheck(rules.media), rules.max_inputs)


def _check_rerank(body: dict[str, Any], rules: MeaningRules, _changes: Changes) -> int:
    if "query" not in body:
        raise refusal("query", "is missing.")
    name = "texts" if "texts" in body and "documents" not in body else "documents"
    return check_text_list(body.get(name), name, rules.max_inputs)


def _check_tokenize(body: dict[str, Any], rules: MeaningRules, _changes: Changes) -> int:
    if "tokens" in body:
        for index, token in enumerate(body["tokens"]):
            if not 0 <= token < 2**31:
                raise refusal(f"tokens[{index}]", "is not a token id.")
    if "content" in body and body["content"] != []:
        count_prompts(body["content"], "content", MediaCheck(rules.media), rules.max_inputs)
        if isinstance(body["content"], dict):
            raise refusal("content", "must be a string or a list.")
    return 1


def _check_infill(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> int:
    for name in ("input_prefix", "input_suffix"):
        if name not in body:
            raise refusal(name, "is missing.")
    for index, extra in enumerate(body.get("input_extra", [])):
        for name in ("text", "filename"):
            if not isinstance(extra.get(name, ""), str) or (name == "text" and name not in extra):
                raise refusal(f"input_extra[{index}].{name}", "must be a string.")
    _check_generation(body, rules, changes)
    return 1


def _check_completions(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> int:
    if body.get("echo"):
        raise refusal("echo", "is not supported: this server cannot return the prompt's own tokens.")
    if body.get("best_of", 1) > 1:
        raise refusal("best_of", "is not supported; use `n`.")
    if body.get("suffix"):
        raise refusal("suffix", "is not supported here; use /infill with a model that can fill in the middle.")
    for name in ("best_of", "suffix"):  # the engine refuses the fields, whatever they say
        if name in body:
            del body[name]
            changes.changed = True
    if "prompt" not in body:
        raise refusal("prompt", "is missing.")
    _check_generation(body, rules, changes)
    return count_prompts(body["prompt"], "prompt", MediaCheck(rules.media), rules.max_inputs)


def _check_generation(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> None:
    """Check what all routes have in common that generate text from one: where it stops and what form it has."""
    if _RARE.isdisjoint(body):
        return
    if "stop" in body:
        _check_stops(body, "stop", rules, changes)
    if "json_schema" in body:
        check_schema(body["json_schema"], "json_schema", rules.schemas, changes, strict=False)
    if "response_format" in body:
        _check_response_format(body["response_format"], rules, changes)


def _check_stops(body: dict[str, Any], name: str, rules: MeaningRules, changes: Changes) -> None:
    drop_blank_stops(body, name, changes)
    stops = body.get(name)
    if isinstance(stops, list) and len(stops) > rules.max_stops:
        raise refusal(name, f"must not have more than {rules.max_stops} entries.")


def _check_logit_bias(value: dict[str, Any] | list[Any]) -> None:
    pairs = value.items() if isinstance(value, dict) else value
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise refusal("logit_bias", "must be an object of token ids and biases, or a list of such pairs.")
        token, bias = pair
        if (
            isinstance(token, bool)
            or not isinstance(token, int | str)
            or (isinstance(token, str) and len(token) > _MAX_WORD)
        ):
            raise refusal("logit_bias", f"has {quoted(token)} where a token id belongs.")
        if bias is not False and (isinstance(bias, bool) or not isinstance(bias, int | float)):
            raise refusal("logit_bias", f"has {quoted(bias)} where a bias belongs: a number, or false.")


def _check_chat(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> int:
    check_chat_messages(body.get("messages"), MediaCheck(rules.media), changes)
    if _CHAT_RARE.isdisjoint(body):
        return 1
    if not _TOOL_FIELDS.isdisjoint(body):
        check_chat_tools(body, changes)
        _check_tool_schemas(body, rules, changes)
    if "modalities" in body and "audio" in body["modalities"]:
        raise refusal("modalities", 'must be ["text"]: this server does not speak.')
    _check_generation(body, rules, changes)
    return 1


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


def _apply_text_format(body: dict[str, Any], rules: MeaningRules, changes: Changes) -> None:
    """Check `text.format` of the Responses API and add what the engine reads in its place: `response_format`."""
    form = body["text"].get("format")
    if form is None:
        return
    if not isinstance(form, dict):
        raise refusal("text.format", f"must be an object, not {kind(form)}.")
    wanted: dict[str, Any]
    if form.get("type") == "json_schema":
        strict = form.get("strict") is True
        check_schema(form.get("schema"), "text.format.schema", rules.schemas, changes, strict=strict)
        wanted = {"type": "json_schema", "json_schema": {"schema": form["schema"], "strict": strict}}
    elif form.get("type") == "json_object":
        wanted = {"type": "json_object"}
    elif form.get("type") == "text":
        return
    else:
        raise refusal("text.format.type", f"must be text, json_object or json_schema, not {quoted(form.get('type'))}.")
    for name in ("response_format", "grammar", "json_schema"):
        if name in body:
            raise refusal("text.format", f"cannot be combined with `{name}`.")
    body["response_format"] = wanted
    changes.changed = True


_CHECKS: dict[str, Callable[[dict[str, Any], MeaningRules, Changes], int]] = {
    "chat": _check_chat,
    "completions": _check_completions,
    "responses": _check_responses,
    "messages": _check_messages,
    "embeddings": _check_embeddings,
    "rerank": _check_rerank,
    "infill": _check_infill,
    "tokenize": _check_tokenize,
}
