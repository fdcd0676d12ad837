"""What clients see of the engine's /v1/models and /props: no file paths, none of its arguments. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from llama_gguf.api_errors import GatewayError
from llama_gguf.states import Residency

_SHOWN = frozenset(
    {
        *("default_generation_settings", "total_slots", "model_ftype", "modalities", "media_marker", "is_sleeping"),
        *("chat_template", "chat_template_tool_use", "chat_template_caps", "bos_token", "eos_token", "build_info"),
    }
)
_META = ("vocab_type", "n_vocab", "n_ctx_train", "n_ctx", "n_embd", "n_params", "size")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What the configuration and the gateway know of one model; `engine`: its engine's own /v1/models, once known."""

    name: str
    state: Residency
    task: str
    context: int  # tokens of one request; 0 = the engine decides
    modalities: tuple[str, ...]
    engine: bytes
    of: str = ""  # the model of which this is a variant, or another name


def present_models(entries: Sequence[ModelEntry], *, wanted: str) -> bytes:
    """Return the body for a models route: all these models, or the `wanted` one. Raises GatewayError."""
    shown = [_entry(one) for one in entries]
    if not wanted:
        return orjson.dumps({"object": "list", "data": shown})
    name = unquote(wanted)
    for entry in shown:
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


def _entry(one: ModelEntry) -> dict[str, Any]:
    engine = _first(one.engine)
    meta = engine.get("meta")
    meta = {key: meta[key] for key in _META if key in meta} if isinstance(meta, dict) else {}
    entry: dict[str, Any] = {
        "id": one.name,
        "object": "model",
        "created": engine.get("created", 0),
        "owned_by": "llama.cpp",
        "state": one.state,
        "task": one.task,
        "context": one.context or meta.get("n_ctx") or None,
        "modalities": one.modalities,
    }
    if one.of:
        entry["parent"] = one.of
    return entry | ({"meta": meta} if meta else {})


def present_props(body: bytes, alias: str) -> bytes:
    """Return those of the engine's properties that clients need, the model under its alias. Raises GatewayError."""
    try:
        props = orjson.loads(body)
        shown = {name: value for name, value in props.items() if name in _SHOWN}
    except (orjson.JSONDecodeError, AttributeError):
        raise GatewayError("engine_protocol", "The engine sent an invalid response.") from None
    return orjson.dumps({"model_alias": alias, "model_path": alias, **shown})
