"""Tools for a model whose chat template has none: llama-server drops them in silence, and answers in prose. Pure.

Judged by `chat_template_caps` of its /props, which it finds by trying the template out. Of the 70 templates that
llama.cpp ships, those that have neither capability put no tool into the prompt, and no call into the grammar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.refusal import refusal

_WHAT = "the chat template of this model has no tools"
_CAPABILITIES = ("supports_tools", "supports_tool_calls")


def check_tools_of_template(props: bytes, fields: Mapping[str, Any], changes: Changes) -> None:
    """Check a body that offers tools by the engine's properties; an engine that does not say changes nothing.

    Raises GatewayError 400 where a call is required, since no answer could have one.
    """
    choice = fields.get("tool_choice")
    mode = choice.get("type") if isinstance(choice, dict) else choice
    if mode == "none" or not _without_tools(props):
        return
    if mode in ("required", "any"):
        raise refusal("tool_choice", f"cannot be met: {_WHAT}. Use `auto`, or another model.")
    changes.warn(f"tools are left out: {_WHAT}")


def _without_tools(props: bytes) -> bool:
    """Return whether it is certain that tools do not reach the model."""
    try:
        found = orjson.loads(props)
    except orjson.JSONDecodeError:
        return False
    caps = found.get("chat_template_caps") if isinstance(found, dict) else None
    return isinstance(caps, dict) and all(caps.get(name) is False for name in _CAPABILITIES)
