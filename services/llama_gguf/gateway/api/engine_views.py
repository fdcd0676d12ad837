"""What clients see of the engine's /v1/models and /props: no file paths, none of its arguments. Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import orjson

from llama_gguf.api_errors import GatewayError

_SHOWN = frozenset(
    {
        *("default_generation_settings", "total_slots", "model_ftype", "modalities", "media_marker", "is_sleeping"),
        *("chat_template", "chat_template_tool_use", "chat_template_caps", "bos_token", "eos_token", "build_info"),
    }
)
_META = ("vocab_type", "n_vocab", "n_ctx_train", "n_ctx", "n_embd", "n_params", "size")


def present_models(body: bytes, served: tuple[str, ...], allowed: tuple[str, ...] | None, *, wanted: str) -> bytes:
    """Return the body for a models route: all models the key can use, or the `wanted` one. Raises GatewayError."""
    engine = _first(body)
    visible = [name for name in served if allowed is None or name in allowed]
    entries = [_entry(name, engine) for name in visible]
    if not wanted:
        return orjson.dumps({"object": "list", "data": entries})
    name = unquote(wanted)
    for entry in entries:
        if entry["id"] == name:
            return orjson.dumps(entry)
    raise GatewayError(
        "model_not_found", f"The model {name!r} does not exist, or this API key is not allowed to use it."
    )


def _first(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)["data"]
        return data[0] if isinstance(data[0], dict) else {}
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return {}


def _entry(name: str, engine: dict[str, Any]) -> dict[str, Any]:
    meta = engine.get("meta")
    entry = {"id": name, "object": "model", "created": engine.get("created", 0), "owned_by": "llama.cpp"}
    if isinstance(meta, dict):
        entry["meta"] = {key: meta[key] for key in _META if key in meta}
    return entry


def present_props(body: bytes, alias: str) -> bytes:
    """Return those of the engine's properties that clients need, the model under its alias. Raises GatewayError."""
    try:
        props = orjson.loads(body)
        shown = {name: value for name, value in props.items() if name in _SHOWN}
    except (orjson.JSONDecodeError, AttributeError):
        raise GatewayError("engine_protocol", "The engine sent an invalid response.") from None
    return orjson.dumps({"model_alias": alias, "model_path": alias, **shown})
