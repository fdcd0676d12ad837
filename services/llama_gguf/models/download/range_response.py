"""Status and headers of a response -> which bytes of the file its body holds (RFC 9110, section 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llama_gguf.models.server_message import retry_after_seconds

_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")


@dataclass(frozen=True, slots=True)
class PartialContent:
    """The bytes from `start` to before `end` of a file of `total` bytes."""

    start: int
    end: int
    total: int
    validator: str


@dataclass(frozen=True, slots=True)
class FullContent:
    """The complete file; `total` is None if the server does not send it."""

    total: int | None
    validator: str


@dataclass(frozen=True, slots=True)
class RangeNotSatisfiable:
    """No bytes: the requested range starts at or after the end of the file."""

    total: int | None


@dataclass(frozen=True, slots=True)
class InvalidRange:
    """A partial response that does not say which bytes it holds: this server's ranges cannot be used."""


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """Any other status: not the file."""

    status: int
    retry_after: float | None  # seconds


RangeResponse = PartialContent | FullContent | RangeNotSatisfiable | InvalidRange | ErrorResponse


def read_response(status: int, headers: Mapping[str, str]) -> RangeResponse:
    """Return what the body of a response is; `headers` must be case-insensitive."""
    if status == 200:
        length = headers.get("Content-Length", "")
        return FullContent(int(length) if length.isdecimal() else None, _validator(headers))
    if status in (206, 416):
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        total = int(match["total"]) if match and match["total"] != "*" else None
        if status == 416:
            return RangeNotSatisfiable(total)
        if match is None or match["start"] is None or total is None:
            return InvalidRange()
        start, end = int(match["start"]), int(match["last"]) + 1
        return PartialContent(start, end, total, _validator(headers)) if start < end <= total else InvalidRange()
    return ErrorResponse(status, retry_after_seconds(headers.get("Retry-After", "")))


def _validator(headers: Mapping[str, str]) -> str:
    """Return the validator for If-Range: a strong ETag, else the modification date, else ""."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
        return etag
    return headers.get("Last-Modified", "")
