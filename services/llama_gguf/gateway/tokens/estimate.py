"""Estimates from its body how many tokens a request can use, before the engine has seen it. Pure.

The estimate is low for the prompt (4 bytes per token, text only: images and audio in base64 are not text) and high for
the completion (all that `max_tokens` allows). It is what a limit reserves and what the queue uses as cost; both are
settled to the engine's own count afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BYTES_PER_TOKEN = 4
"""Of text, estimated."""
_AUDIO_BYTES_PER_TOKEN = 1024  # about 30 tokens per second of 16 kHz WAV; the actual number depends on the projector
_MEDIA_TOKENS = 256  # an image or a clip; the actual number depends on the projector
_UNKNOWN_CONTEXT = 4096
_MAX_CHOICES = 64
_MAX_TOKENS = 1_000_000_000

_PROMPT_FIELDS: dict[str, tuple[str, ...]] = {
    "chat": ("messages", "tools"),
    "completions": ("prompt",),
    "responses": ("instructions", "input", "tools"),
    "messages": ("system", "messages", "tools"),
    "embeddings": ("input", "content"),
    "rerank": ("query", "documents", "texts"),
    "infill": ("input_prefix", "input_suffix", "input_extra", "prompt"),
}
_GENERATING = frozenset({"chat", "completions", "responses", "messages", "infill"})
# The engine accepts any of these on any route, and decides which of them applies: the largest is counted.
_MAX_TOKENS_FIELDS = ("n_predict", "max_completion_tokens", "max_tokens", "max_output_tokens")
_CHOICE_FIELDS = ("n_cmpl", "n")
_MEDIA_FIELDS = frozenset({"image_url", "input_audio", "image_data", "source", "file_data", "multimodal_data"})
_SMALL_BYTES = 4096
_CHAT_GROUPS = frozenset({"chat", "messages"})
_DEPTH = 16  # no message format nests deeper; anything below that is not counted


def estimate_tokens(group: str, body: Mapping[str, Any], body_bytes: int, context: int = 0) -> int:
    """Return the maximum tokens, prompt and completions together, that a request of this route group can use.

    `context` is the context size of one request, 0 if unknown. `body_bytes` is an upper bound of the prompt.
    """
    fields = _PROMPT_FIELDS.get(group)
    if fields is None:
        return 0
    prompt, sequences = _prompt_tokens(group, fields, body, body_bytes)
    if group not in _GENERATING:
        return max(1, min(prompt, context * sequences) if context else prompt)
    per_sequence = -(-prompt // sequences)
    completion = _completion_tokens(body)
    if completion is None:  # until the context is full
        total = context or max(_UNKNOWN_CONTEXT, per_sequence)
    else:
        total = per_sequence + completion
        if 0 < context < total:
            total = context
    return max(1, total * sequences * _choices(body))


def estimate_chat_tokens(group: str, raw: bytes, body: Mapping[str, Any], context: int = 0) -> int:
    """Return an estimate as `estimate_tokens` does, but a little higher and computed far faster if possible.

    A small request whose only list is that of its messages contains neither media nor lists of tokens, so the length of
    the body is nearly as good an estimate as that of the texts in it.
    """
    if len(raw) > _SMALL_BYTES or group not in _CHAT_GROUPS or raw.count(b"[") > 1:
        return estimate_tokens(group, body, len(raw), context)
    completion = _completion_tokens(body)
    total = context or _UNKNOWN_CONTEXT
    if completion is not None:
        limited = len(raw) // BYTES_PER_TOKEN + completion
        if not 0 < context < limited:
            total = limited
    return total * _choices(body) if "n" in body or "n_cmpl" in body else total


def estimate_transcription_tokens(file_bytes: int, prompt: str, max_tokens: int | None, context: int = 0) -> int:
    """Return the maximum tokens that the transcription of an audio file can use."""
    read = -(-file_bytes // _AUDIO_BYTES_PER_TOKEN) + -(-len(prompt.encode()) // BYTES_PER_TOKEN)
    total = context or max(_UNKNOWN_CONTEXT, read)
    return max(1, total if max_tokens is None else min(total, read + max_tokens))


def _prompt_tokens(group: str, fields: tuple[str, ...], body: Mapping[str, Any], body_bytes: int) -> tuple[int, int]:
    """Return the tokens of all prompts of a body, and the number of prompts."""
    text_bytes = 0
    for name in fields:
        if name in body and (value := body[name]) is not None:
            text_bytes += _text_bytes(value, _DEPTH)
    tokens = -(-text_bytes // BYTES_PER_TOKEN)
    if tokens > body_bytes:
        tokens = max(1, body_bytes)
    if group == "rerank":
        documents = body.get("documents") or body.get("texts")
        count = len(documents) if isinstance(documents, list) else 1
        query = -(-_text_bytes(body.get("query"), _DEPTH) // BYTES_PER_TOKEN)
        return tokens + query * max(0, count - 1), max(1, count)  # each document is processed with the query
    if group in ("completions", "embeddings"):
        value = body.get(fields[0])
        value = body.get(fields[-1]) if value is None else value
        if isinstance(value, list) and value and not isinstance(value[0], int):
            return tokens, len(value)
    return tokens, 1


def _text_bytes(value: object, depth: int) -> int:
    """Return the bytes of text in a value; an integer in a list is a token, so it counts as the bytes of one."""
    # Plain loops: this runs for every request, and generators doubled its cost.
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    total = 0
    if depth == 0:
        return total
    if isinstance(value, list):
        for item in value:
            total += BYTES_PER_TOKEN if type(item) is int else _text_bytes(item, depth - 1)  # bool is a subclass of int
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _MEDIA_FIELDS:
                total += _MEDIA_TOKENS * BYTES_PER_TOKEN
            elif item.__class__ is str and item.isascii():
                total += len(item)  # nearly always
            else:
                total += _text_bytes(item, depth - 1)
    return total


def _completion_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the maximum length of the completion, or None if the request does not limit it."""
    largest: float | None = None
    for name in _MAX_TOKENS_FIELDS:
        if name not in body:
            continue
        value = body[name]
        if value.__class__ is not int and value.__class__ is not float:  # bool is a subclass of int
            continue
        if not 0 <= value <= _MAX_TOKENS:  # -1 = until the context is full
            return None
        if largest is None or value > largest:
            largest = value
    return None if largest is None else int(largest)


def _choices(body: Mapping[str, Any]) -> int:
    choices = 1
    for name in _CHOICE_FIELDS:
        if name in body and isinstance(value := body[name], int) and value > choices:
            choices = value
    return choices if choices < _MAX_CHOICES else _MAX_CHOICES
