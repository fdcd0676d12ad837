"""The gateway's errors and routes as data for the generated reference and the OpenAPI document. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llama_gguf.gateway.api.routes import ROUTES


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One error code: the status it comes with, what it means and what the caller can do."""

    code: str
    status: int
    meaning: str
    remedy: str


ERROR_CODES: tuple[ErrorCode, ...] = (
    ErrorCode("bad_request", 400, "The request is not valid HTTP, JSON or API.", "Correct the request."),
    ErrorCode(
        "context_length_exceeded",
        400,
        "Prompt and answer do not fit into a slot's context.",
        "Shorten the prompt, or raise engine.context_per_slot.",
    ),
    ErrorCode(
        "media_not_allowed",
        400,
        "The request names media by address.",
        "Send it inline, or set gateway.allow_remote_media.",
    ),
    ErrorCode(
        "invalid_api_key",
        401,
        "The key is missing, malformed, unknown or expired.",
        "Send a valid key; `llama-gguf keys list` shows their ids and expiry.",
    ),
    ErrorCode(
        "insufficient_scope", 403, "The key may not call this route.", "Use a key with the scope the message names."
    ),
    ErrorCode("not_found", 404, "There is no such route, or it is closed.", "See gateway.routes."),
    ErrorCode(
        "model_not_found",
        404,
        "The model does not exist, or the key may not use it.",
        "GET /v1/models lists what the key may use.",
    ),
    ErrorCode("method_not_allowed", 405, "The route takes other methods.", "The header Allow names them."),
    ErrorCode("request_timeout", 408, "Headers or body came too slowly.", "Send faster, or raise gateway.timeouts."),
    ErrorCode("payload_too_large", 413, "The body is over gateway.max_body_bytes.", "Send less."),
    ErrorCode("uri_too_long", 414, "The request line is over gateway.max_request_line_bytes.", "Shorten it."),
    ErrorCode("unsupported_encoding", 415, "The body is compressed.", "Send it without Content-Encoding."),
    ErrorCode(
        "expectation_failed", 417, "The header Expect asks for something unknown.", "Send 100-continue or nothing."
    ),
    ErrorCode("rate_limit_exceeded", 429, "A limit of the key is reached.", "Wait as long as Retry-After says."),
    ErrorCode("insufficient_quota", 429, "The key's tokens for this month are used up.", "Raise its monthly_tokens."),
    ErrorCode("header_fields_too_large", 431, "Too many or too long header lines.", "Send fewer or shorter ones."),
    ErrorCode("internal_error", 500, "A defect of the gateway.", "Report it with the request id; the log has more."),
    ErrorCode("engine_error", 500, "The engine failed at this request.", "See the engine's log."),
    ErrorCode(
        "keys_unusable",
        500,
        "The keys file could not be read again; the keys read before stay in use.",
        "Correct the file; `llama-gguf keys list` says what is wrong.",
    ),
    ErrorCode(
        "audit_unavailable",
        500,
        "The audit log cannot be written, so admin calls are refused.",
        "Free or repair the disk that holds auth.audit_file.",
    ),
    ErrorCode("not_supported", 501, "The engine does not do this as it is configured.", "See engine and model."),
    ErrorCode("engine_unreachable", 502, "The engine is not running.", "It is restarted by itself; try again."),
    ErrorCode("engine_closed", 502, "The engine broke off before its answer was complete.", "Try again."),
    ErrorCode("engine_protocol", 502, "The engine's answer could not be understood.", "See the engine's log."),
    ErrorCode("engine_refused", 502, "The engine refused the gateway's own key.", "Restart the appliance."),
    ErrorCode("model_loading", 503, "The model is still loading.", "Wait as long as Retry-After says."),
    ErrorCode(
        "engine_failed",
        503,
        "The engine could not be started, and is not tried again.",
        "`llama-gguf status` says why; correct that and restart the appliance.",
    ),
    ErrorCode("queue_full", 503, "Too many requests wait already.", "Wait as long as Retry-After says."),
    ErrorCode("queue_timeout", 503, "No slot became free in time.", "Wait as long as Retry-After says."),
    ErrorCode(
        "timeout",
        504,
        "The engine took too long: to connect, for its first byte, between two chunks, or in all.",
        "Ask for less, or raise gateway.timeouts.",
    ),
    ErrorCode(
        "client_stalled",
        504,
        "The client took nothing of its stream for too long (in logs only).",
        "Read the stream.",
    ),
    ErrorCode("http_version_not_supported", 505, "Only HTTP/1.1 and HTTP/1.0 are spoken.", "Use one of them."),
)


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
