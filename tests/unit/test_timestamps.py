"""A time as UTC text."""

from __future__ import annotations

import datetime as dt

from llama_gguf.timestamps import utc_day, utc_file_stamp, utc_text

NOON = dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC)


def test_a_moment_of_any_zone_is_written_in_utc() -> None:
    assert utc_text(NOON.astimezone(dt.timezone(dt.timedelta(hours=2)))) == "2030-01-31T12:00:00Z"
    assert utc_text(NOON.timestamp()) == "2030-01-31T12:00:00Z"


def test_precision() -> None:
    moment = NOON + dt.timedelta(milliseconds=250)
    assert utc_text(moment) == "2030-01-31T12:00:00.250000Z"
    assert utc_text(moment, "milliseconds") == "2030-01-31T12:00:00.250Z"
    assert utc_text(moment, "seconds") == "2030-01-31T12:00:00Z"


def test_days_and_names_of_files() -> None:
    assert utc_day(NOON.timestamp() - 43_200.001) == "2030-01-30"
    assert utc_day(NOON.timestamp() - 43_200) == "2030-01-31"
    assert utc_file_stamp(NOON.timestamp() + 0.25) == "20300131T120000.250000Z"
