"""The errors that clients of the gateway get: each code once, with its status, its type and what it means.

The table is what errors are made from, what the reference prints and what metrics and the access log call an outcome.
Imports nothing of the gateway, so that every part of it can raise them; `gateway.api.error_responses` turns them into
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llama_gguf.errors import LlamaGgufError

Outcome = Literal[
    "ok", "rejected", "client_error", "client_gone", "engine_error", "upstream_error", "timeout", "internal_error"
]
"""How a request ended, in metrics and in the access log."""

# OpenAI's `type` for statuses that have one of their own.
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_REJECTED = frozenset({401, 403, 429, 503})


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One error code: the status it comes with, what it means and what the caller can do.

    `type` and `outcome` are given only where they do not follow from the status.
    """

    code: str
    status: int
    meaning: str
    remedy: str
    type: str = ""
    outcome: Outcome | None = None


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
    ErrorCode(
        "insufficient_quota",
        429,
        "The key's tokens for this month are used up.",
        "Raise its monthly_tokens.",
        type="insufficient_quota",
    ),
    ErrorCode("header_fields_too_large", 431, "Too many or too long header lines.", "Send fewer or shorter ones."),
    ErrorCode(
        "internal_error",
        500,
        "A defect of the gateway.",
        "Report it with the request id; the log has more.",
        outcome="internal_error",
    ),
    ErrorCode("engine_error", 500, "The engine failed at this request.", "See the engine's log."),
    ErrorCode(
        "keys_unusable",
        500,
        "The keys file could not be read again; the keys read before stay in use.",
        "Correct the file; `llama-gguf keys list` says what is wrong.",
        outcome="internal_error",
    ),
    ErrorCode(
        "audit_unavailable",
        500,
        "The audit log cannot be written, so admin calls are refused.",
        "Free or repair the disk that holds auth.audit_file.",
        outcome="internal_error",
    ),
    ErrorCode("not_supported", 501, "The engine does not do this as it is configured.", "See engine and model."),
    ErrorCode(
        "engine_unreachable",
        502,
        "The engine is not running.",
        "It is restarted by itself; try again.",
        outcome="upstream_error",
    ),
    ErrorCode(
        "engine_closed",
        502,
        "The engine broke off before its answer was complete.",
        "Try again.",
        outcome="upstream_error",
    ),
    ErrorCode(
        "engine_protocol",
        502,
        "The engine's answer could not be understood.",
        "See the engine's log.",
        outcome="upstream_error",
    ),
    ErrorCode(
        "engine_refused",
        502,
        "The engine refused the gateway's own key.",
        "Restart the appliance.",
        outcome="upstream_error",
    ),
    ErrorCode("model_loading", 503, "The model is still loading.", "Wait as long as Retry-After says."),
    ErrorCode(
        "engine_failed",
        503,
        "The engine could not be started, and is not tried again.",
        "`llama-gguf status` says why; correct that and restart the appliance.",
        outcome="upstream_error",
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

_BY_CODE = {known.code: known for known in ERROR_CODES}


class GatewayError(LlamaGgufError):
    """An error response, made by its code: clients and tests match on it. `message` says what the client should do.

    `status` and `type` are given only for errors of the engine, which keep their own. `retry_after` is in whole
    seconds, as the Retry-After header wants them; `headers` are further ones.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        status: int | None = None,
        type: str = "",  # noqa: A002 - the field's name in OpenAI's error object
    ) -> None:
        super().__init__(message)
        known = _BY_CODE[code]
        self.code = code
        self.status = known.status if status is None else status
        self.type = type or known.type or _type_of(self.status)
        self.param = param
        self.retry_after = retry_after
        self.headers = headers

    @property
    def outcome(self) -> Outcome:
        """How a request ends that is answered with this."""
        return _BY_CODE[self.code].outcome or _outcome_of(self.status)


def _type_of(status: int) -> str:
    return "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")


def _outcome_of(status: int) -> Outcome:
    if status == 504:
        return "timeout"
    if status in _REJECTED:
        return "rejected"
    return "engine_error" if status >= 500 else "client_error"
