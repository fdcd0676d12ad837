"""The messages of a chat: each role, part and tool call has the form that llama-server can work with. Pure.

A malformed tool call in the history makes llama-server answer 500 to every further turn, and agents repeat their
history (llama.cpp issue 25510). Here the client is told which call it is.
"""

from __future__ import annotations

from typing import Any

import orjson

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.content.media import OPENAI_TYPES, MediaCheck
from llama_gguf.gateway.request.refusal import kind, quoted, refusal

_TEXT_FIELDS = ("name", "tool_call_id", "reasoning_content")


def check_chat_messages(messages: object, media: MediaCheck, changes: Changes) -> None:
    """Check `messages` of chat completions. Raises GatewayError."""
    if not isinstance(messages, list):
        raise refusal("messages", "is missing." if messages is None else f"must be a list, not {kind(messages)}.")
    if not messages:
        raise refusal("messages", "must not be empty.")
    for index, message in enumerate(messages):
        # Nearly always: a role and a text, nothing else.
        if (
            message.__class__ is dict
            and len(message) == 2
            and message.get("content").__class__ is str
            and message.get("role").__class__ is str
            and message["role"]
        ):
            continue
        _check_message(message, f"messages[{index}]", media, changes)


def _check_message(message: object, path: str, media: MediaCheck, changes: Changes) -> None:
    if not isinstance(message, dict):
        raise refusal(path, f"must be an object, not {kind(message)}.")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise refusal(f"{path}.role", "is missing." if role is None else f"must be a string, not {quoted(role)}.")
    for name in (*_TEXT_FIELDS, "tool_calls"):
        if name in message and message[name] is None:
            del message[name]
            changes.changed = True
    for name in _TEXT_FIELDS:
        if name in message and not isinstance(message[name], str):
            raise refusal(f"{path}.{name}", f"must be a string, not {kind(message[name])}.")
    calls = message.get("tool_calls")
    if message.get("function_call") is not None:
        raise refusal(f"{path}.function_call", "is not supported; use `tool_calls`.")
    if "content" not in message and (role != "assistant" or calls is None):
        raise refusal(f"{path}.content", "is missing.")
    _check_content(message.get("content"), f"{path}.content", media, changes)
    if calls is not None:
        check_tool_calls(calls, f"{path}.tool_calls", changes)


def _check_content(content: object, path: str, media: MediaCheck, changes: Changes) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise refusal(path, f"must be a string or a list of parts, not {kind(content)}.")
    for index, part in enumerate(content):
        where = f"{path}[{index}]"
        if not isinstance(part, dict):
            raise refusal(where, f"must be an object, not {kind(part)}.")
        form = part.get("type")
        if form == "text":
            _check_text(part, "text", where)
        elif form in OPENAI_TYPES:
            media.openai_part(part, where)
        elif form == "refusal":  # of an earlier answer; the engine knows no such part
            _check_text(part, "refusal", where)
            content[index] = {"type": "text", "text": part["refusal"]}
            changes.changed = True
        else:
            raise refusal(f"{where}.type", f"must be text, image_url or input_audio, not {quoted(form)}.")


def _check_text(part: dict[str, Any], name: str, path: str) -> None:
    text = part.get(name)
    if not isinstance(text, str):
        raise refusal(f"{path}.{name}", "is missing." if text is None else f"must be a string, not {kind(text)}.")


def check_tool_calls(calls: object, path: str, changes: Changes) -> None:
    """Check the tool calls of an earlier answer. Raises GatewayError."""
    if not isinstance(calls, list):
        raise refusal(path, f"must be a list, not {kind(calls)}.")
    for index, call in enumerate(calls):
        where = f"{path}[{index}]"
        if not isinstance(call, dict):
            raise refusal(where, f"must be an object, not {kind(call)}.")
        if call.get("type") != "function":
            raise refusal(f"{where}.type", f'must be "function", not {quoted(call.get("type"))}.')
        function = call.get("function")
        if not isinstance(function, dict):
            raise refusal(f"{where}.function", f"must be an object, not {kind(function)}.")
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise refusal(f"{where}.function.name", f"must be a name, not {quoted(function.get('name'))}.")
        if "id" in call and not isinstance(call["id"], str):
            raise refusal(f"{where}.id", f"must be a string, not {kind(call['id'])}.")
        check_arguments(function, f"{where}.function.arguments", changes)


def check_arguments(call: dict[str, Any], path: str, changes: Changes) -> None:
    """Check the `arguments` of one tool call: a JSON object, as text. None at all are an empty one."""
    arguments = call.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        call["arguments"] = "{}"
        changes.changed = True
        return
    if isinstance(arguments, dict):
        return
    if not isinstance(arguments, str):
        raise refusal(path, f"must be a JSON object as a string, not {kind(arguments)}.")
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
        raise refusal(path, f"is not valid JSON ({reason}).") from None
    if not isinstance(value, dict):
        raise refusal(path, f"must be a JSON object, not {kind(value)}.")
