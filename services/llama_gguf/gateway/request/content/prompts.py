"""Prompts and inputs: one or many, each a text, token ids or both. Pure.

How many there are decides what a request costs and how many places it takes.
"""

from __future__ import annotations

from typing import Any

from llama_gguf.gateway.request.content.media import MediaCheck
from llama_gguf.gateway.request.refusal import kind, refusal

_WORDS = "must be a string, a list of token ids, or a list of such"


def count_prompts(value: object, name: str, media: MediaCheck, max_count: int) -> int:
    """Return the number of prompts in a field that is not null. Raises GatewayError."""
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        _check_object(value, name, media)
        return 1
    if not isinstance(value, list):
        raise refusal(name, f"{_WORDS}, not {kind(value)}.")
    if not value:
        raise refusal(name, "must not be empty.")
    if any(item.__class__ is int for item in value):  # one prompt, of ids and perhaps texts
        _check_mixed(value, name)
        return 1
    if len(value) > max_count:
        raise refusal(name, f"must not have more than {max_count} entries.")
    for index, item in enumerate(value):
        path = f"{name}[{index}]"
        if isinstance(item, list):
            if not item:
                raise refusal(path, "must not be empty.")
            _check_mixed(item, path)
        elif isinstance(item, dict):
            _check_object(item, path, media)
        elif not isinstance(item, str):
            raise refusal(path, f"must be a string or a list of token ids, not {kind(item)}.")
    return len(value)


def check_text_list(value: object, name: str, max_count: int) -> int:
    """Return the number of texts in a list of them. Raises GatewayError."""
    if not isinstance(value, list):
        raise refusal(name, "is missing." if value is None else f"must be a list, not {kind(value)}.")
    if not value:
        raise refusal(name, "must not be empty.")
    if len(value) > max_count:
        raise refusal(name, f"must not have more than {max_count} entries.")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise refusal(f"{name}[{index}]", f"must be a string, not {kind(item)}.")
    return len(value)


def _check_mixed(items: list[Any], path: str) -> None:
    for index, item in enumerate(items):
        if item.__class__ is int:
            if not 0 <= item < 2**31:
                raise refusal(f"{path}[{index}]", "is not a token id.")
        elif item.__class__ is not str:
            raise refusal(f"{path}[{index}]", f"must be a token id or a string, not {kind(item)}.")


def _check_object(value: dict[str, Any], path: str, media: MediaCheck) -> None:
    """Check the engine's own form: a text with places for media, and the media."""
    if not isinstance(value.get("prompt_string"), str):
        raise refusal(f"{path}.prompt_string", "is missing." if "prompt_string" not in value else "must be a string.")
    data = value.get("multimodal_data")
    if data is None:
        return
    if not isinstance(data, list):
        raise refusal(f"{path}.multimodal_data", f"must be a list, not {kind(data)}.")
    for index, item in enumerate(data):
        media.base64_item(item, f"{path}.multimodal_data[{index}]")
