"""Times and durations as text: `30d`, `24h`, `60m`, `never`, ISO 8601 with or without a time zone."""

from __future__ import annotations

import datetime as dt
import re

from llama_gguf.errors import KeysError

_SPAN = re.compile(r"([0-9]{1,6})\s*([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_span(text: str) -> dt.timedelta:
    """Parse `90s`, `60m`, `24h`, `30d`, `2w` or `0`."""
    text = text.strip().lower()
    if text == "0":
        return dt.timedelta(0)
    found = _SPAN.fullmatch(text)
    if not found:
        raise KeysError("not a duration", code="key-time", hint="write it like 60m, 24h or 30d")
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


def parse_moment(text: str) -> dt.datetime:
    """Parse an ISO 8601 time, by default in UTC; a date is its midnight."""
    try:
        moment = dt.datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise KeysError(
            "not an ISO 8601 time", code="key-time", hint="write it like 2030-01-31T12:00:00Z or 2030-01-31T12:00+02:00"
        ) from None


def parse_expiry(text: str, now: dt.datetime) -> dt.datetime | None:
    """Parse a key's expiry: a duration from `now`, a time, or `never` (None)."""
    if text.strip().lower() in ("never", "none"):
        return None
    if _SPAN.fullmatch(text.strip().lower()):
        return (now + parse_span(text)).replace(microsecond=0)
    try:
        return parse_moment(text)
    except KeysError as error:
        error.hint = "write it like 30d, 24h, 60m, never, or 2030-01-31T12:00:00Z"
        raise
