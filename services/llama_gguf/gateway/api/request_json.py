"""What the gateway reads from a request's JSON body, and what it must not let through. Pure.

The engine parses the same bytes again; where the two parsers could differ (encoding, duplicate keys) this one is
stricter or reads the same value, so what was checked here is what the engine acts on.
"""

from __future__ import annotations

from typing import Any

import orjson

from llama_gguf.api_errors import GatewayError

_MEDIA_OBJECTS = frozenset({"image_url", "input_audio", "input_video", "video_url", "audio_url", "source"})
_MEDIA_FIELDS = ("url", "data")


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises GatewayError 400."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        what = "is empty" if not body.strip() else f"is not valid JSON: {error.msg} (line {error.lineno})"
        raise GatewayError("bad_request", f"The request body {what}.") from None
    if not isinstance(value, dict):
        raise GatewayError("bad_request", "The request body must be a JSON object.")
    return value


def model_name(body: dict[str, Any]) -> str:
    """Return the requested model, "" if the body names none. Raises GatewayError 400."""
    model = body.get("model", "")
    if model is None:
        return ""
    if not isinstance(model, str):
        raise GatewayError("bad_request", "`model` must be a string.", param="model")
    return model


def sequences(body: dict[str, Any]) -> tuple[int, int]:
    """Return the number of choices per prompt that a generating request asks for, and its number of prompts."""
    value = body.get("n")
    if value is None:
        value = body.get("n_cmpl")
    choices = value if type(value) is int and value > 1 else 1  # bool is a subclass of int
    prompts = body.get("prompt")
    if isinstance(prompts, list) and len(prompts) > 1 and not any(isinstance(item, int) for item in prompts):
        return choices, len(prompts)
    return choices, 1


def check_media(raw: bytes, body: dict[str, Any], *, allow_remote: bool) -> None:
    """Reject media that the engine would fetch from the network or from its own disk. Raises GatewayError 400.

    Ignores case and leading whitespace, so it errs on the side of rejecting.
    """
    # A few plain searches are far cheaper than one case-insensitive regular expression, and `find` than `in`, which
    # for bytes creates an exception and drops it.
    find = raw.lower().find
    if find(b"http") < 0 and find(b"file:") < 0 and find(b"\\u") < 0:
        return
    stack: list[Any] = [body]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(item for item in value if isinstance(item, list | dict))
        elif isinstance(value, dict):
            for name, item in value.items():
                if name in _MEDIA_OBJECTS:
                    _check_source(name, item, allow_remote)
                if isinstance(item, list | dict):
                    stack.append(item)


def _check_source(name: str, value: object, allow_remote: bool) -> None:
    urls = [value.get(field) for field in _MEDIA_FIELDS] if isinstance(value, dict) else [value]
    for url in urls:
        if not isinstance(url, str):
            continue
        start = url[:64].lstrip().lower()
        if start.startswith("file:"):
            raise GatewayError("media_not_allowed", "Media URLs must not point to files of the server.", param=name)
        if start.startswith("http") and not allow_remote:
            raise GatewayError(
                "media_not_allowed",
                "Remote media URLs are disabled; send the media inline as a base64 data: URL.",
                param=name,
            )
