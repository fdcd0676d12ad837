"""Status and headers of an answer -> what of a file its body holds. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes from `start` to before `end` of a file of `total` bytes."""

    start: int
    end: int
    total: int
    version: str


@dataclass(frozen=True, slots=True)
class Whole:
    """All of the file; its length may not be told."""

    total: int | None
    version: str


@dataclass(frozen=True, slots=True)
class Beyond:
    """Nothing: the range that was asked for lies behind the end."""

    total: int | None


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something of the file, but it does not say what: ranges do not work with this server."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not the file."""

    status: int
    retry_after: float | None  # seconds


Answer = Piece | Whole | Beyond | Unusable | Refusal


def read_answer(status: int, headers: Mapping[str, str]) -> Answer:
    """Return what the body of an answer is; `headers` finds names in any case."""
    if status == 200:
        length = headers.get("Content-Length", "")
        return Whole(int(length) if length.isdecimal() else None, _version(headers))
    if status in (206, 416):
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        total = int(match["total"]) if match and match["total"] != "*" else None
        if status == 416:
            return Beyond(total)
        if match is None or match["start"] is None or total is None:
            return Unusable()
        start, end = int(match["start"]), int(match["last"]) + 1
        return Piece(start, end, total, _version(headers)) if start < end <= total else Unusable()
    after = headers.get("Retry-After", "").strip()
    return Refusal(status, float(after) if after.isdecimal() else None)


def _version(headers: Mapping[str, str]) -> str:
    """Return what stands for these very bytes: a strong ETag, else the date, else ""."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
        return etag
    return headers.get("Last-Modified", "")
