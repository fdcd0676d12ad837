"""What the generated reference says of the gateway beside its routes and errors, as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llama_gguf.gateway.api.routes import ROUTES


@dataclass(frozen=True, slots=True)
class RouteRow:
    """One route as the reference shows it."""

    method: str
    path: str
    group: str
    scope: str
    summary: str


def route_rows() -> list[RouteRow]:
    """Return every route there can be, in the order of the table."""
    return [
        RouteRow(route.method, route.template, route.group, route.scope or "none", route.summary) for route in ROUTES
    ]


ROUTE_NOTES: tuple[str, ...] = (
    (
        "Errors on `/v1/messages` and below are in Anthropic's shape, and every answer there carries `request-id` "
        "beside `x-request-id`."
    ),
    (
        "llama-server leaves `message_start` out of an Anthropic stream whose first token is no whole character (many "
        "an emoji); the gateway puts one in its place, with `input_tokens` 0. From OpenAI's streams it leaves out the "
        "first chunk's role, and `response.created`, in that case; these pass as they are."
    ),
    (
        "Transcriptions take multipart/form-data with the fields `file`, `model`, `prompt`, `language`, `temperature`, "
        "`max_tokens`, `stream` and `response_format` (`json` only); other fields do not reach the engine. Without a "
        "model that hears (`model.mmproj`) they are answered with 501 `not_supported`."
    ),
)
"""What the table of routes cannot say."""


@dataclass(frozen=True, slots=True)
class CountingRow:
    """How the tokens of one kind of answer come to be known: as a rule, and of an engine that cannot be asked."""

    answer: str
    known: str
    otherwise: str


_TOLD = "told by the answer"
_ASKED = "asked of the engine afterwards"
_BY_LENGTH = "the prompt a token for four bytes, at most what was reserved"
COUNTING: tuple[CountingRow, ...] = (
    CountingRow("complete, streamed or plain", *[_TOLD] * 2),
    CountingRow("several in one (`n`, lists of prompts)", _TOLD, "plain on OpenAI's routes: those of the first only"),
    CountingRow("embeddings on llama.cpp's own routes", _ASKED, _BY_LENGTH),
    CountingRow("one whose counts the client had left out", _ASKED, "all that was reserved"),
    CountingRow(
        "a stream that was left, cut or timed out", _ASKED, f"{_BY_LENGTH}; of the answer the tokens that came"
    ),
    CountingRow(
        "a plain answer that was left or timed out",
        _ASKED,
        f"{_BY_LENGTH}; of the answer the time it took at the mean speed of answers",
    ),
)
"""What is charged, reported and logged for an answer."""


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
"""Route -> where a request may be -> the kinds of answer of which a client that goes away frees the engine's slot
within a second. Each combination is a test on the real engine (tests/e2e/test_gateway_cancel.py)."""
