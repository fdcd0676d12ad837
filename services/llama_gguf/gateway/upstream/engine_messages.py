"""What llama-server's error messages mean for a client: the mistakes that are the client's, each with its parameter.

llama-server answers 500 where an exception of its own ends the handling of a request, and most of these are about the
body: a missing field, a wrong type, a template that refuses the messages. Clients repeat a 500, and its text is C++.
The rules are tried in order; a message that none of them knows is passed on without its C++ parts. Source: the throws
and errors of tools/server and common/ of the pinned llama.cpp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error is to the client. `counts`: the groups of the pattern that are n_prompt_tokens and n_ctx."""

    code: str
    param: str | None
    message: str
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    """`message` and `param` may refer to the pattern's groups, as `\\1`."""

    pattern: re.Pattern[str]
    message: str
    param: str | None = None
    code: str = "bad_request"
    counts: bool = False


def _rule(
    pattern: str, message: str, param: str | None = None, *, code: str = "bad_request", counts: bool = False
) -> _Rule:
    return _Rule(re.compile(pattern, re.DOTALL), message, param, code, counts)


_PROMPT_TYPES = "must be a string, a list of token ids, or a list of such"
_NO_MEDIA = r"The model of this server takes no \1 input; the operator may have to configure model.mmproj."

_RULES = (
    _rule(
        r"input \((\d+) tokens\) is too large to process.*current batch size: (\d+)",
        r"An input has \1 tokens, and this server takes at most \2 in one input (engine.batch_size).",
        "input",
        code="context_length_exceeded",
        counts=True,
    ),
    _rule(
        r"input \((\d+) tokens\) is larger than the max context size \((\d+) tokens\)",
        r"An input has \1 tokens, and this server takes at most \2 in one input (engine.context_per_slot).",
        "input",
        code="context_length_exceeded",
        counts=True,
    ),
    # A template's own words are for the client, the rest of the message shows its source.
    _rule(r"Jinja Exception: ([^\n]{1,400})", r"The model's chat template refuses the messages: \1", "messages"),
    _rule(
        r"JSON schema error at (\S{1,200}): ([^\n]{1,300})",
        r"A JSON schema cannot be used: at \1: \2.",
        None,
    ),
    _rule(
        r"Unable to generate parser for this template|While executing \w+ at line",
        "The model's chat template cannot be applied to these messages and tools.",
        "messages",
    ),
    _rule(r"^(image|audio|video) input is not supported", _NO_MEDIA, "messages"),
    _rule(r"model does not support (multimodal) requests", _NO_MEDIA, "prompt"),
    _rule(
        r"Failed to load image or audio file|Invalid (?:uri-encoded )?base64|uri must be base64|Invalid uri format",
        "An image or audio part cannot be read: it must be a data: URL or base64 of a supported format.",
        "messages",
    ),
    _rule(
        r"^Field '([\w.]+)': Value must be between (\S+) <= value <= ([^\s,]+)",
        r"`\1` must be between \2 and \3.",
        r"\1",
    ),
    _rule(r"^Field '([\w.]+)': .*type must be (\w+), but is (\w+)", r"`\1` must be \2, not \3.", r"\1"),
    _rule(r"key '([\w.]{1,64})' not found", r"`\1` is missing.", r"\1"),
    _rule(r"type must be (\w+), but is (\w+)", r"A value in the body must be \1, but is \2."),
    _rule(r"^Failed to parse (tools|messages): ([\w ']{4,60}[\w'])", r"`\1` cannot be used: \2.", r"\1"),
    _rule(r"^'messages' is required", "`messages` is missing.", "messages"),
    _rule(r'^"prompt" elements must be', f"The prompt {_PROMPT_TYPES}.", "prompt"),
    _rule(r"^\"(\w+)\" (is required|must be [^.{}]{3,80})", r"`\1` \2.", r"\1"),
    _rule(
        r"vector::_M_range_check|Prompt contains invalid tokens|^Invalid token$",
        "A token id is not in the model's vocabulary.",
    ),
    _rule(
        r"Unexpected empty grammar stack",
        "No token of the model fits what the request demands (grammar, schema, logit_bias).",
    ),
    _rule(
        r"the grammar is too ambiguous",
        "The grammar or schema allows too many ways to read one text; make its alternatives begin differently.",
    ),
    _rule(r"failed to parse grammar", "The grammar cannot be parsed.", "grammar"),
    _rule(r"^Unsupported param: (\w+)", r"`\1` is not supported.", r"\1"),
    _rule(
        r"^This server does not support embeddings",
        "This server computes no embeddings; the operator may set engine.task: embed.",
        code="not_supported",
    ),
    _rule(
        r"^This server does not support reranking",
        "This server does not rerank; the operator may set engine.task: rerank.",
        code="not_supported",
    ),
    _rule(
        r"^This server does not support [^.]{1,60}\. Start it with `(--[a-z-]+)`",
        r"The engine runs without \1; the operator may add it to engine.extra_args.",
        code="not_supported",
    ),
    _rule(r"json\.exception", "A value in the body has a type or form that is not allowed there."),
)
_INTERNALS = re.compile(r"std::|::_M_|json\.exception|0x[0-9a-f]{6,}|\b\w+\.(?:cpp|h):\d+|basic_string|bad_alloc")


def find_meaning(message: str) -> Meaning | None:
    """Return what a message of the engine means, None if it is not known to be the client's mistake."""
    for rule in _RULES:
        if found := rule.pattern.search(message):
            param = found.expand(rule.param) if rule.param is not None else None
            counts = tuple(int(group) for group in found.groups()) if rule.counts else ()
            return Meaning(rule.code, param, found.expand(rule.message), counts)
    return None


def shows_internals(message: str) -> bool:
    """Return whether a message shows a client what is only of use to a developer of the engine."""
    return _INTERNALS.search(message) is not None
