"""The engine's properties as clients may see them: no paths, nothing of how the engine was started. Pure."""

from __future__ import annotations

import orjson

from llama_gguf.errors import GatewayError

_SHOWN = frozenset(
    {
        *("default_generation_settings", "total_slots", "model_ftype", "modalities", "media_marker", "is_sleeping"),
        *("chat_template", "chat_template_tool_use", "chat_template_caps", "bos_token", "eos_token", "build_info"),
    }
)


def present_props(body: bytes, alias: str) -> bytes:
    """Return the engine's answer with what clients need of it, the model under its alias. Raises GatewayError."""
    try:
        props = orjson.loads(body)
        shown = {name: value for name, value in props.items() if name in _SHOWN}
    except (orjson.JSONDecodeError, AttributeError):
        raise GatewayError(
            502, "engine_protocol", "The engine's answer could not be understood.", type="server_error"
        ) from None
    return orjson.dumps({"model_alias": alias, "model_path": alias, **shown})
