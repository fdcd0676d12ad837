"""The messages of Anthropic's API: each block is one that llama-server translates; it drops others in silence. Pure."""

from __future__ import annotations

from typing import Any

from llama_gguf.gateway.request.content.media import MediaCheck
from llama_gguf.gateway.request.refusal import kind, quoted, refusal

# Tuples: what a client sends may be of a type that no set can look up.
_ROLES = ("user", "assistant", "system")
_WITHOUT_TEXT = ("redacted_thinking",)  # means nothing to another model: dropped, as it should be


def check_anthropic_messages(body: dict[str, Any], media: MediaCheck) -> None:
    """Check `system` and `messages`. Raises GatewayError."""
    _check_system(body.get("system"))
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise refusal("messages", "is missing." if messages is None else f"must be a list, not {kind(messages)}.")
    if not messages:
        raise refusal("messages", "must not be empty.")
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if not isinstance(message, dict):
            raise refusal(path, f"must be an object, not {kind(message)}.")
        if message.get("role") not in _ROLES:
            raise refusal(f"{path}.role", f"must be user or assistant, not {quoted(message.get('role'))}.")
        content = message.get("content")
        if isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise refusal(f"{path}.content", f"must be a string or a list of blocks, not {kind(content)}.")
        for number, block in enumerate(content):
            _check_block(block, f"{path}.content[{number}]", media)


def _check_system(system: object) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise refusal("system", f"must be a string or a list of text blocks, not {kind(system)}.")
    for index, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise refusal(f"system[{index}]", "must be a text block.")
        _check_string(block, "text", f"system[{index}]")


def _check_block(block: object, path: str, media: MediaCheck) -> None:
    if not isinstance(block, dict):
        raise refusal(path, f"must be an object, not {kind(block)}.")
    form = block.get("type")
    if form in ("text", "thinking"):
        _check_string(block, form, path)
    elif form == "image":
        media.anthropic_block(block, path)
    elif form == "tool_use":
        _check_string(block, "id", path)
        _check_string(block, "name", path)
        if not isinstance(block.get("input", {}), dict):
            raise refusal(f"{path}.input", f"must be an object, not {kind(block['input'])}.")
    elif form == "tool_result":
        _check_string(block, "tool_use_id", path)
        _check_result(block.get("content"), f"{path}.content", media)
    elif form not in _WITHOUT_TEXT:
        raise refusal(f"{path}.type", f"must be text, image, thinking, tool_use or tool_result, not {quoted(form)}.")


def _check_result(content: object, path: str, media: MediaCheck) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise refusal(path, f"must be a string or a list of blocks, not {kind(content)}.")
    for index, block in enumerate(content):
        where = f"{path}[{index}]"
        form = block.get("type") if isinstance(block, dict) else None
        if form == "text":
            _check_string(block, "text", where)
        elif form == "image":
            media.anthropic_block(block, where)
        else:
            raise refusal(f"{where}.type", f"must be text or image, not {quoted(form)}.")


def _check_string(block: dict[str, Any], name: str, path: str) -> None:
    value = block.get(name)
    if not isinstance(value, str):
        raise refusal(f"{path}.{name}", "is missing." if value is None else f"must be a string, not {kind(value)}.")
