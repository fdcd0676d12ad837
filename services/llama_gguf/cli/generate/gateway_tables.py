"""What the generated reference says about the gateway besides its routes and errors, as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ROUTE_NOTES: tuple[str, ...] = (
    (
        "Errors on `/v1/messages` and below have Anthropic's JSON shape, and every response there carries `request-id` "
        "besides `x-request-id`."
    ),
    (
        "llama-server omits `message_start` from an Anthropic stream whose first token is not a complete character "
        "(many emoji); the gateway inserts one, with `input_tokens` 0. From chat completions it omits the first "
        "chunk's role in that case, which passes on unchanged. Streams of responses are completed with all that "
        "OpenAI's clients require."
    ),
    (
        "llama-server's other routes are closed to clients, whatever their key: `/v1/stream` and `/v1/streams/lookup`, "
        "which replay a stream to whoever knows its id, `/v1/chat/completions/control`, `/tools` and `/cors-proxy`."
    ),
    (
        "If the model's chat template has no tools, as llama-server finds, a request that requires a tool call is 400, "
        "and one that offers tools is answered without them, which its `Warning` header says."
    ),
    (
        "A stream is limited to as many prompts times `n` as there are slots; without `stream` more prompts, inputs or "
        "documents take their turn in parts. Such a response has no `timings`."
    ),
    (
        "Transcriptions accept multipart/form-data with the fields `file`, `model`, `prompt`, `language`, "
        "`temperature`, `max_tokens`, `stream` and `response_format` (`json` only); other fields do not reach the "
        "engine. Without an audio-capable model (`model.mmproj`) they return 501 `not_supported`."
    ),
)
"""Notes below the table of routes."""


_REPORTED = "reported in the response"
_QUERIED = "queried from the engine afterwards"
_ESTIMATED = "prompt estimated at 4 bytes per token, at most what was reserved"
COUNTING: tuple[tuple[str, str, str], ...] = (
    ("complete, streamed or not", _REPORTED, _REPORTED),
    (
        "several choices or prompts (`n`, `prompt` as a list)",
        _REPORTED,
        "not streamed, on OpenAI's routes: those of the first choice only",
    ),
    ("embeddings on llama.cpp's own routes", _QUERIED, _ESTIMATED),
    ("complete, with the counts disabled by the client", _QUERIED, "everything that was reserved"),
    (
        "a stream ended early by the client, the engine or a timeout",
        _QUERIED,
        f"{_ESTIMATED}; completion: the tokens received",
    ),
    (
        "not streamed, and ended early by the client or a timeout",
        _QUERIED,
        f"{_ESTIMATED}; completion: elapsed time at the mean speed of all responses",
    ),
)
"""Kind of response, where its token counts come from, and what replaces them if the engine has no answer: what is
charged, reported and logged."""


Phase = Literal["queued", "prefill", "generating"]
_GENERATES: Mapping[Phase, tuple[str, ...]] = dict.fromkeys(("queued", "prefill", "generating"), ("stream", "plain"))
_SCORES: Mapping[Phase, tuple[str, ...]] = dict.fromkeys(("queued", "prefill"), ("plain",))
CANCEL_MATRIX: Mapping[str, Mapping[Phase, tuple[str, ...]]] = {
    "/v1/chat/completions": _GENERATES,
    "/v1/completions": _GENERATES,
    "/v1/responses": _GENERATES,
    "/v1/messages": _GENERATES,
    "/infill": _GENERATES,
    "/v1/embeddings": _SCORES,
    "/v1/rerank": _SCORES,
}
"""Route -> phase of the request -> the kinds of response for which a disconnecting client frees the engine's slot
within a second. Each combination is a test on the real engine (tests/e2e/test_gateway_cancel.py)."""
