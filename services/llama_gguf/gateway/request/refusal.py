"""How a part of a request's body is refused: 400, with the part's path as `param`. Pure."""

from __future__ import annotations

from llama_gguf.api_errors import GatewayError

_MAX_WORD = 60


def refusal(path: str, message: str) -> GatewayError:
    """Return the error for the part at `path`, as in messages[2].content; `message` begins with what is wrong."""
    return GatewayError("bad_request", f"`{path}` {message}", param=path)


def quoted(value: object) -> str:
    """Return a value of the client's for a message: short, and on one line."""
    text = repr(value)
    return text if len(text) <= _MAX_WORD else f"{text[:_MAX_WORD]}..."


def kind(value: object) -> str:
    """Return what JSON calls the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
