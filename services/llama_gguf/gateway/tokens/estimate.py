"""How many tokens a request may cost, guessed from its body before the engine has seen it. Pure.

The prompt is guessed low (four bytes a token, text only: images and audio in base64 are not text), the answer high
(all that `max_tokens` allows). The guess is what a limit reserves and what the queue weighs; both are settled to the
engine's own count afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BYTES_PER_TOKEN = 4
"""Of text, as a guess."""
_AUDIO_BYTES_PER_TOKEN = 1024  # about 30 tokens a second of 16 kHz WAV; what it really takes depends on the projector
_MEDIA_TOKENS = 256  # an image or a clip; what it really takes depends on the projector
_UNKNOWN_CONTEXT = 4096
_MAX_CHOICES = 64
_MOST_TOKENS = 1_000_000_000

_PROMPT_FIELDS: dict[str, tuple[str, ...]] = {
    "chat": ("messages", "tools"),
    "completions": ("prompt",),
    "responses": ("instructions", "input", "tools"),
    "messages": ("system", "messages", "tools"),
    "embeddings": ("input", "content"),
    "rerank": ("query", "documents", "texts"),
    "infill": ("input_prefix", "input_suffix", "input_extra", "prompt"),
}
_ANSWERING = frozenset({"chat", "completions", "responses", "messages", "infill"})
# The engine takes any of these on any route, and which of them wins is its business: the largest is counted.
_ANSWER_FIELDS = ("n_predict", "max_completion_tokens", "max_tokens", "max_output_tokens")
_CHOICE_FIELDS = ("n_cmpl", "n")
_MEDIA_FIELDS = frozenset({"image_url", "input_audio", "image_data", "source", "file_data", "multimodal_data"})
_SMALL_BYTES = 4096
_TALKS = frozenset({"chat", "messages"})
_DEPTH = 16  # no message format nests deeper; a body that does is not worth walking


def estimate_tokens(group: str, body: Mapping[str, Any], body_bytes: int, context: int = 0) -> int:
    """Return the most tokens, prompt and answers together, that a request of this route group may use.

    `context` is what one request can use at all; 0 = not known. `body_bytes` bounds the prompt from above.
    """
    fields = _PROMPT_FIELDS.get(group)
    if fields is None:
        return 0
    prompt, sequences = _prompt_tokens(group, fields, body, body_bytes)
    if group not in _ANSWERING:
        return max(1, min(prompt, context * sequences) if context else prompt)
    per_sequence = -(-prompt // sequences)
    answer = _answer_tokens(body)
    if answer is None:  # until the context is full
        total = context or max(_UNKNOWN_CONTEXT, per_sequence)
    else:
        total = per_sequence + answer
        if 0 < context < total:
            total = context
    return max(1, total * sequences * _choices(body))


def estimate_chat_tokens(group: str, raw: bytes, body: Mapping[str, Any], context: int = 0) -> int:
    """Return an estimate as `estimate_tokens` does, a little higher and far cheaper where that is possible.

    In a small request whose only list is that of its messages there are neither media nor lists of tokens; of those the
    length of the whole body is nearly as good a guess as that of the texts in it.
    """
    if len(raw) > _SMALL_BYTES or group not in _TALKS or raw.count(b"[") > 1:
        return estimate_tokens(group, body, len(raw), context)
    answer = _answer_tokens(body)
    total = context or _UNKNOWN_CONTEXT
    if answer is not None:
        some = len(raw) // BYTES_PER_TOKEN + answer
        if not 0 < context < some:
            total = some
    return total * _choices(body)


def estimate_transcription_tokens(file_bytes: int, prompt: str, max_tokens: int | None, context: int = 0) -> int:
    """Return the most tokens that the transcription of an audio file may use."""
    read = -(-file_bytes // _AUDIO_BYTES_PER_TOKEN) + -(-len(prompt.encode()) // BYTES_PER_TOKEN)
    total = context or max(_UNKNOWN_CONTEXT, read)
    return max(1, total if max_tokens is None else min(total, read + max_tokens))


def _prompt_tokens(group: str, fields: tuple[str, ...], body: Mapping[str, Any], body_bytes: int) -> tuple[int, int]:
    """Return the tokens of all prompts of a body, and how many prompts it holds."""
    weight = 0
    for name in fields:
        if name in body and (value := body[name]) is not None:
            weight += _weigh(value, _DEPTH)
    tokens = -(-weight // BYTES_PER_TOKEN)
    if tokens > body_bytes:
        tokens = max(1, body_bytes)
    if group == "rerank":
        documents = body.get("documents") or body.get("texts")
        count = len(documents) if isinstance(documents, list) else 1
        query = -(-_weigh(body.get("query"), _DEPTH) // BYTES_PER_TOKEN)
        return tokens + query * max(0, count - 1), max(1, count)  # each document is read together with the query
    if group in ("completions", "embeddings"):
        value = body.get(fields[0])
        value = body.get(fields[-1]) if value is None else value
        if isinstance(value, list) and value and not isinstance(value[0], int):
            return tokens, len(value)
    return tokens, 1


def _weigh(value: object, depth: int) -> int:
    """Return the bytes of text in a value; a number in a list is a token, so it weighs as much as one."""
    # Plain loops: this runs for every request, and generators made it twice as dear.
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    total = 0
    if depth == 0:
        return total
    if isinstance(value, list):
        for item in value:
            total += BYTES_PER_TOKEN if type(item) is int else _weigh(item, depth - 1)  # bool is an int, and no token
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _MEDIA_FIELDS:
                total += _MEDIA_TOKENS * BYTES_PER_TOKEN
            elif item.__class__ is str and item.isascii():
                total += len(item)  # nearly always
            else:
                total += _weigh(item, depth - 1)
    return total


def _answer_tokens(body: Mapping[str, Any]) -> int | None:
    """Return how long the answer may be, or None where the request leaves it open."""
    longest: float | None = None
    for name in _ANSWER_FIELDS:
        if name not in body:
            continue
        value = body[name]
        if value.__class__ is not int and value.__class__ is not float:  # bool is an int, and no count
            continue
        if not 0 <= value <= _MOST_TOKENS:  # -1 = until the context is full
            return None
        if longest is None or value > longest:
            longest = value
    return None if longest is None else int(longest)


def _choices(body: Mapping[str, Any]) -> int:
    most = 1
    for name in _CHOICE_FIELDS:
        if name in body and isinstance(value := body[name], int) and value > most:
            most = value
    return most if most < _MAX_CHOICES else _MAX_CHOICES
