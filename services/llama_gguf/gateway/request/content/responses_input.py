"""The input of OpenAI's Responses API: each item is one that llama-server translates, or is told. Pure."""

from __future__ import annotations

from typing import Any

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.content.history import check_arguments
from llama_gguf.gateway.request.content.media import MediaCheck
from llama_gguf.gateway.request.refusal import kind, quoted, refusal

# Without these the answer would be to another question than the client has asked.
_STATEFUL = ("previous_response_id", "conversation", "prompt", "background")
_INPUT_ROLES = ("user", "system", "developer")


def check_responses_input(body: dict[str, Any], media: MediaCheck, changes: Changes) -> None:
    """Check `input` and what this server cannot do at all. Raises GatewayError."""
    for name in _STATEFUL:
        if body.get(name):
            raise refusal(name, "is not supported: this server keeps no responses. Send the whole conversation.")
    if body.get("instructions") is not None and not isinstance(body["instructions"], str):
        raise refusal("instructions", f"must be a string, not {kind(body['instructions'])}.")
    items = body.get("input")
    if isinstance(items, str):
        return
    if not isinstance(items, list):
        raise refusal("input", "is missing." if items is None else f"must be a string or a list, not {kind(items)}.")
    if not items:
        raise refusal("input", "must not be empty.")
    kept = [item for index, item in enumerate(items) if _check_item(item, f"input[{index}]", media, changes)]
    if len(kept) != len(items):
        body["input"] = kept
        changes.changed = True


def _check_item(item: object, path: str, media: MediaCheck, changes: Changes) -> bool:
    """Return whether the engine is to get the item. Raises GatewayError."""
    if not isinstance(item, dict):
        raise refusal(path, f"must be an object, not {kind(item)}.")
    form = item.get("type", "message")
    if form == "message":
        _check_message(item, path, media, changes)
    elif form == "function_call":
        for name in ("call_id", "name"):
            _check_string(item, name, path)
        check_arguments(item, f"{path}.arguments", changes)
        if isinstance(item["arguments"], dict):
            raise refusal(f"{path}.arguments", "must be a JSON object as a string, not an object.")
    elif form == "function_call_output":
        _check_string(item, "call_id", path)
        _check_output(item.get("output"), f"{path}.output", media)
    elif form == "reasoning":
        return _has_reasoning(item)  # encrypted, or a summary only: means nothing to another model
    else:
        words = "must be message, function_call, function_call_output or reasoning"
        raise refusal(f"{path}.type", f"{words}, not {quoted(form)}.")
    return True


def _check_message(item: dict[str, Any], path: str, media: MediaCheck, changes: Changes) -> None:
    role = item.get("role")
    if role == "assistant":
        if item.get("type") is None:  # the engine needs it here, and only here
            item["type"] = "message"
            changes.changed = True
        kinds: tuple[str, ...] = ("output_text", "input_text", "refusal")
    elif role in _INPUT_ROLES:
        kinds = ("input_text", "input_image")
    else:
        raise refusal(f"{path}.role", f"must be user, assistant, system or developer, not {quoted(role)}.")
    content = item.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise refusal(f"{path}.content", f"must be a string or a list of parts, not {kind(content)}.")
    for index, part in enumerate(content):
        where = f"{path}.content[{index}]"
        form = part.get("type") if isinstance(part, dict) else None
        if form not in kinds:
            raise refusal(f"{where}.type", f"must be one of {', '.join(kinds)}, not {quoted(form)}.")
        if form == "input_image":
            media.responses_part(part, where)
        elif form == "refusal":  # the engine has no such part in a chat, and would refuse its own translation
            _check_string(part, "refusal", where)
            content[index] = {"type": "output_text", "text": part["refusal"]}
            changes.changed = True
        else:
            _check_string(part, "text", where)


def _check_output(output: object, path: str, media: MediaCheck) -> None:
    if isinstance(output, str):
        return
    if not isinstance(output, list):
        raise refusal(path, "is missing." if output is None else f"must be a string or a list, not {kind(output)}.")
    for index, part in enumerate(output):
        where = f"{path}[{index}]"
        form = part.get("type") if isinstance(part, dict) else None
        if form == "input_text":
            _check_string(part, "text", where)
        elif form == "input_image":
            media.responses_part(part, where)
        else:
            raise refusal(f"{where}.type", f"must be input_text or input_image, not {quoted(form)}.")


def _has_reasoning(item: dict[str, Any]) -> bool:
    content = item.get("content")
    if not isinstance(content, list) or not content or not isinstance(item.get("summary"), list):
        return False
    first = content[0]
    return isinstance(first, dict) and isinstance(first.get("text"), str)


def _check_string(item: dict[str, Any], name: str, path: str) -> None:
    value = item.get(name)
    if not isinstance(value, str):
        raise refusal(f"{path}.{name}", "is missing." if value is None else f"must be a string, not {kind(value)}.")
