"""Translates error responses of the engine into errors for clients. Pure."""

from __future__ import annotations

import re

import orjson

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.upstream.engine_messages import find_meaning, shows_internals

_ENGINE_CODES = {
    "invalid_request_error": "bad_request",
    "exceed_context_size_error": "context_length_exceeded",
    "not_supported_error": "not_supported",
    "unavailable_error": "engine_error",
    "server_error": "engine_error",
    "not_found_error": "not_found",
}
_EXPLAINED = ("server_error", "invalid_request_error", "not_supported_error")
_COUNTS = ("n_prompt_tokens", "n_ctx")  # the engine's names, which clients of llama.cpp read
ENGINE_RETRY_SECONDS = 5
_PATHS = re.compile(r"(?<![\w/])/(?:[\w.@+-]+/)+[\w.@+-]+")


def engine_error(status: int, body: bytes) -> GatewayError:
    """Translate an error response of the engine: what is the client's mistake becomes a 400 that names the parameter.

    Otherwise status and message are kept, and `code` becomes a string. A 401 means that the gateway's own key was
    rejected, which is not the client's fault: 502. File paths and what only a developer understands are removed.
    """
    if status == 401:
        return GatewayError("engine_refused", "The engine rejected the gateway's own key.")
    message, kind, counts = _engine_message(body)
    if _says_loading(status, message, kind):
        return model_loading()
    if kind in _EXPLAINED and (meaning := find_meaning(message)) is not None:
        details = dict(zip(_COUNTS, meaning.counts, strict=False))
        text = _PATHS.sub("<path>", meaning.message)
        kept = kind if meaning.code == "not_supported" else ""
        return GatewayError(meaning.code, text, type=kept, param=meaning.param, details=details)
    code = _ENGINE_CODES.get(kind, "bad_request" if status < 500 else "engine_error")
    if shows_internals(message):
        message = "The engine could not process the request."
    # The engine's default type is less specific than the status.
    known = "" if kind == "invalid_request_error" else kind
    return GatewayError(code, _PATHS.sub("<path>", message), status=status, type=known, details=counts)


def without_paths(text: str) -> str:
    """Return a text for clients: they are not told where on this machine files are."""
    return _PATHS.sub("<path>", text)


def is_loading(status: int, body: bytes) -> bool:
    """Return whether the engine has refused a request, without having read it, because its model is still loading.

    Its other 503 says that no slot is free (`GET /slots?fail_on_no_slot=1`): that is an answer.
    """
    if status != 503:
        return False
    message, kind, _ = _engine_message(body)
    return _says_loading(status, message, kind)


def _says_loading(status: int, message: str, kind: str) -> bool:
    return status == 503 and kind == "unavailable_error" and message == "Loading model"


def _engine_message(body: bytes) -> tuple[str, str, dict[str, int]]:
    try:
        error = orjson.loads(body)["error"]
        if isinstance(error, str):
            return error, "", {}
        counts = {name: error[name] for name in _COUNTS if type(error.get(name)) is int}
        return str(error["message"]), str(error.get("type", "")), counts
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return "The engine reported an error without a message.", "", {}


def model_loading() -> GatewayError:
    """Return the error for a request that arrived before the engine was ready."""
    return GatewayError(
        "model_loading", "The model is still loading; try again soon.", retry_after=ENGINE_RETRY_SECONDS
    )
