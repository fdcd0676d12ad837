"""Times as people write them."""

from __future__ import annotations

import datetime as dt

import pytest

from llama_gguf.errors import KeysError
from llama_gguf.keys.durations import parse_expiry, parse_moment, parse_span
from llama_gguf.timestamps import utc_text
from support.keys_made import NOW


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90s", 90), ("60m", 3600), ("24h", 86_400), ("30d", 2_592_000), ("2w", 1_209_600), (" 1 H ", 3600)],
)
def test_spans(text: str, seconds: int) -> None:
    assert parse_span(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "d", "1", "-1d", "1y", "1.5h", "9999999d", "²d"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(KeysError, match="not a duration"):
        parse_span(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z"),
        ("2030-01-31T12:00:00+02:00", "2030-01-31T10:00:00Z"),
        ("2030-01-31T12:00:00-05:30", "2030-01-31T17:30:00Z"),
        ("2030-01-31T12:00:00", "2030-01-31T12:00:00Z"),
        ("2030-01-31", "2030-01-31T00:00:00Z"),
        ("2030-01-31T12:00:00.250000+00:00", "2030-01-31T12:00:00.250000Z"),
    ],
)
def test_moments_with_and_without_a_time_zone(text: str, shown: str) -> None:
    assert utc_text(parse_moment(text)) == shown


@pytest.mark.parametrize("text", ["", "soon", "2030-13-01", "0001-01-01T00:00:00+14:00", "12:00"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(KeysError, match="not an ISO 8601 time"):
        parse_moment(text)


def test_an_expiry_is_a_span_a_moment_or_never() -> None:
    assert parse_expiry("30d", NOW) == NOW + dt.timedelta(days=30)
    assert parse_expiry("2030-01-31T12:00:00+02:00", NOW) == dt.datetime(2030, 1, 31, 10, tzinfo=dt.UTC)
    assert parse_expiry("never", NOW) is None
    assert parse_expiry("None", NOW) is None
    with pytest.raises(KeysError) as caught:
        parse_expiry("tomorrow", NOW)
    assert caught.value.hint == "write it like 30d, 24h, 60m, never, or 2030-01-31T12:00:00Z"
