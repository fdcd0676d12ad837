"""The errors that clients of the gateway get: each code once, with its status, its type and what it means.

Errors are created from this table, the reference prints it, and metrics and the access log take their outcome from it.
Imports nothing of the gateway, so that every part of it can raise them; `gateway.api.error_responses` serializes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llama_gguf.errors import LlamaGgufError

Outcome = Literal[
    "ok", "rejected", "client_error", "client_gone", "engine_error", "upstream_error", "timeout", "internal_error"
]
"""How a request ended, in metrics and in the access log."""

# OpenAI's `type` for statuses with a specific one.
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_REJECTED = frozenset({401, 403, 429, 503})
_TEMPORARY = frozenset({408, 409, 429})
_NEVER = frozenset({501, 505})


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One error code: its status, what it means and what the caller can do.

    `type`, `outcome` and `final` are set only where they do not follow from the status. `final`: the same request gets
    the same response again, so clients should not repeat it.
    """

    code: str
    status: int
    meaning: str
    remedy: str
    type: str = ""
    outcome: Outcome | None = None
    final: bool | None = None


_RETRY = "Retry after the seconds given in Retry-After."

ERROR_CODES: tuple[ErrorCode, ...] = (
    ErrorCode(
        "bad_request",
        400,
        "The request is not valid HTTP or JSON, or a parameter has an invalid value.",
        "Correct the request.",
    ),
    ErrorCode(
        "context_length_exceeded",
        400,
        "Prompt and completion do not fit in a slot's context.",
        "Shorten the prompt, or raise engine.context_per_slot.",
    ),
    ErrorCode(
        "media_not_allowed",
        400,
        "The request contains a media URL that the gateway does not allow.",
        "Send the media inline as a data: URL, or set gateway.allow_remote_media.",
    ),
    ErrorCode(
        "invalid_api_key",
        401,
        "The API key is missing, malformed, unknown or expired.",
        "Send a valid key; `llama-gguf keys list` shows their ids and expiry.",
    ),
    ErrorCode(
        "insufficient_scope",
        403,
        "The key lacks the scope that this route requires.",
        "Use a key with the scope named in the message.",
    ),
    ErrorCode("not_found", 404, "The route does not exist or is disabled.", "See gateway.routes."),
    ErrorCode(
        "model_not_found",
        404,
        "The key is restricted to some models, and the request is for none of them; other keys get the main model.",
        "GET /v1/models lists the models the key can use.",
    ),
    ErrorCode(
        "method_not_allowed",
        405,
        "The route does not support this method.",
        "The Allow header lists the supported methods.",
    ),
    ErrorCode("request_timeout", 408, "Headers or body arrived too slowly.", "Send faster, or raise gateway.timeouts."),
    ErrorCode("payload_too_large", 413, "The body exceeds gateway.max_body_bytes.", "Send a smaller body."),
    ErrorCode("uri_too_long", 414, "The request line exceeds gateway.max_request_line_bytes.", "Shorten the URL."),
    ErrorCode("unsupported_encoding", 415, "The body is compressed.", "Send it without Content-Encoding."),
    ErrorCode(
        "expectation_failed",
        417,
        "The Expect header has an unsupported value.",
        "Send 100-continue or omit the header.",
    ),
    ErrorCode(
        "upgrade_required",
        426,
        "The route has no WebSocket transport.",
        "Send the request by POST over HTTP; clients such as Codex do so on this status.",
    ),
    ErrorCode("rate_limit_exceeded", 429, "A limit of the key is reached.", _RETRY),
    ErrorCode(
        "insufficient_quota",
        429,
        "The key's monthly token quota is used up.",
        "Raise its monthly_tokens.",
        type="insufficient_quota",
        final=True,
    ),
    ErrorCode(
        "too_many_invalid_keys",
        429,
        "Too many requests with an invalid API key came from the client's address.",
        "Send a valid key, which works at once.",
        final=True,
    ),
    ErrorCode(
        "header_fields_too_large",
        431,
        "There are too many headers, or one is too long.",
        "Send fewer or shorter headers.",
    ),
    ErrorCode(
        "internal_error",
        500,
        "A bug in the gateway.",
        "Report it with the request id; the log has details.",
        outcome="internal_error",
    ),
    ErrorCode("engine_error", 500, "The engine failed to process the request.", "See the engine's log."),
    ErrorCode(
        "keys_unusable",
        500,
        "The keys file could not be reloaded; the previous keys stay in use.",
        "Correct the file; `llama-gguf keys list` reports what is wrong.",
        outcome="internal_error",
    ),
    ErrorCode(
        "audit_unavailable",
        500,
        "The audit log cannot be written, so admin calls are refused.",
        "Free or repair the disk that holds auth.audit_file.",
        outcome="internal_error",
    ),
    ErrorCode(
        "not_supported",
        501,
        "The engine does not support this with the current configuration.",
        "Check the settings under engine and model.",
    ),
    ErrorCode(
        "engine_unreachable",
        502,
        "The engine is not running.",
        "Retry; it is restarted automatically.",
        outcome="upstream_error",
    ),
    ErrorCode(
        "engine_closed",
        502,
        "The engine closed the connection before the response was complete.",
        "Retry.",
        outcome="upstream_error",
    ),
    ErrorCode(
        "engine_protocol",
        502,
        "The engine's response was not valid.",
        "See the engine's log.",
        outcome="upstream_error",
    ),
    ErrorCode(
        "engine_refused",
        502,
        "The engine rejected the gateway's own key.",
        "Restart the appliance.",
        outcome="upstream_error",
    ),
    ErrorCode("model_loading", 503, "The model is still loading.", _RETRY),
    ErrorCode(
        "model_failed",
        503,
        "The model could not be loaded, or never fits into memory; other models are served.",
        "See the cause in the message; Retry-After says when it is tried again.",
        outcome="engine_error",
    ),
    ErrorCode(
        "engine_failed",
        503,
        "The engine could not be started, and no further attempt is made.",
        "`llama-gguf status` shows the reason; correct it and restart the appliance.",
        outcome="upstream_error",
        final=True,
    ),
    ErrorCode("queue_full", 503, "Too many requests are queued.", _RETRY),
    ErrorCode("queue_timeout", 503, "No slot became free within limits.queue.max_wait_seconds.", _RETRY),
    ErrorCode(
        "timeout",
        504,
        "The engine took longer than a limit of gateway.timeouts, which the message names.",
        "Lower max_tokens, or raise that limit.",
    ),
    ErrorCode(
        "client_stalled",
        504,
        "The client stopped reading the response (in logs only).",
        "Keep reading the stream.",
    ),
    ErrorCode("http_version_not_supported", 505, "The HTTP version is not supported.", "Use HTTP/1.1 or HTTP/1.0."),
)

_BY_CODE = {known.code: known for known in ERROR_CODES}


class GatewayError(LlamaGgufError):
    """An error response by its code, which clients and tests match on. `message` says what the client should do.

    `status`, `type` and `details`, additional numbers in the error's JSON object, are passed only for errors of the
    engine, which keep their own. `retry_after` is in whole seconds, as the Retry-After header requires; `headers` are
    additional ones. `final`: whether a repetition gets the same response, if the code and status do not say.
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
        details: Mapping[str, int] | None = None,
        final: bool | None = None,
    ) -> None:
        super().__init__(message)
        known = _BY_CODE[code]
        self.code = code
        self.status = known.status if status is None else status
        self.type = type or known.type or _type_of(self.status)
        self.param = param
        self.retry_after = retry_after
        self.headers = headers
        self.details = details or {}
        self.final = _final(known, self.status) if final is None else final

    @property
    def outcome(self) -> Outcome:
        """The outcome of a request that gets this response."""
        return _BY_CODE[self.code].outcome or _outcome_of(self.status)


def _type_of(status: int) -> str:
    return "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")


def _final(known: ErrorCode, status: int) -> bool:
    if known.final is not None:
        return known.final
    return (status < 500 and status not in _TEMPORARY) or status in _NEVER


def _outcome_of(status: int) -> Outcome:
    if status == 504:
        return "timeout"
    if status in _REJECTED:
        return "rejected"
    return "engine_error" if status >= 500 else "client_error"
