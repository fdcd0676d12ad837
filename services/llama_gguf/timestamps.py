"""Timestamps as text: UTC, in the form of RFC 3339 that ends in Z."""

from __future__ import annotations

import datetime as dt
from typing import Literal

Precision = Literal["auto", "seconds", "milliseconds"]


def utc_text(moment: dt.datetime | float, precision: Precision = "auto") -> str:
    """Return a moment (aware, or epoch seconds) in UTC: `2030-01-31T12:00:00Z`.

    `auto` writes whole seconds without a fraction, and any other with microseconds.
    """
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime.fromtimestamp(moment, dt.UTC)
    return moment.astimezone(dt.UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def utc_day(moment: float) -> str:
    """Return the UTC day of epoch seconds: `2030-01-31`."""
    return utc_text(moment)[:10]


def utc_file_stamp(moment: float) -> str:
    """Return epoch seconds for a file name, so that names sort by time: `20300131T120000.000000Z`."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
