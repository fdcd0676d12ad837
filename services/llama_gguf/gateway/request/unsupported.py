"""Fields without which the answer would be another than the client asked for: refused where others are left out. Pure.

They are other APIs', or of ours on another route. Worst is a form that is not kept: the client parses prose.
llama-server's translation of /v1/messages passes on no schema and no grammar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_gguf.gateway.request.refusal import refusal

_FORM = "this route cannot constrain a response to a form: use `response_format` of /v1/chat/completions."
_TOOL_FORM = f"{_FORM[:-1]}, or a tool that `tool_choice` requires."
_VLLM = {
    "guided_json": "use `response_format`.",
    "guided_regex": "use `grammar`.",
    "guided_choice": "use `grammar`, or `response_format` with an enum.",
    "guided_grammar": "use `grammar`, in the notation of llama.cpp (GBNF).",
    "structured_outputs": "use `response_format` or `grammar`.",
}
UNSUPPORTED: Mapping[str, Mapping[str, str]] = {
    "chat": _VLLM,
    "completions": _VLLM,
    "responses": {**_VLLM, "guided_json": "use `text.format`.", "structured_outputs": "use `text.format`."},
    "infill": _VLLM,
    "messages": {
        **dict.fromkeys(_VLLM, _FORM),
        **dict.fromkeys(("output_config.format", "output_format", "json_schema"), _TOOL_FORM),
        **dict.fromkeys(("response_format", "grammar"), _FORM),
        "mcp_servers": "this server connects to no MCP server: the client must, and offer the tools in `tools`.",
        "thread.previous_message_id": "this server keeps no conversations: send all messages.",
        "container": "this server runs no code and has no skills.",
    },
}
"""Group -> field, or field.part -> what to do instead. An empty value asks for nothing, and is left out like others."""


def check_unsupported(group: str, name: str, value: object) -> None:
    """Check a field that the group's table does not have. Raises GatewayError 400."""
    table = UNSUPPORTED.get(group)
    if table is None:
        return
    if value and name in table:
        raise refusal(name, f"is not supported: {table[name]}")
    if isinstance(value, dict):
        _check_parts(table, name, value)


def _check_parts(table: Mapping[str, str], name: str, value: dict[str, Any]) -> None:
    for path, advice in table.items():
        whole, _, part = path.partition(".")
        if whole == name and part and value.get(part):
            raise refusal(path, f"is not supported: {advice}")
