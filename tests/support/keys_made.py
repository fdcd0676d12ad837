"""Key records for tests: fixed ones, and hypothesis strategies for any that are allowed."""

from __future__ import annotations

import datetime as dt
import hashlib
import string
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from llama_gguf.keys.record import KeyFile, KeyRecord, PreviousSecret, RotationMark

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
ALICE = "sk-" + "Alice_key-" * 4 + "abc"
BOB = "sk-" + "Bobs--key_" * 4 + "xyz"

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
"""For property tests: a machine that is busy with other things is no failure."""


def sha(text: str) -> str:
    """Return the digest the file holds of a key."""
    return hashlib.sha256(text.encode()).hexdigest()


def record(key_id: str = "alice", secret: str = ALICE, **given: Any) -> KeyRecord:
    """Make a record of a known key."""
    return KeyRecord(**{"id": key_id, "digest": sha(secret), "prefix": secret[:8], "created": NOW, **given})


_ID_TEXT = string.ascii_letters + string.digits + "_-"
secrets = st.text(_ID_TEXT, min_size=16, max_size=128)
times = st.datetimes(
    dt.datetime(1980, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds and adds the zone itself
    dt.datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))),
).map(lambda moment: moment.astimezone(dt.UTC))
_limits = st.none() | st.integers(1, 1_000_000_000)
_text = st.text(string.ascii_letters + string.punctuation + " é漢😀\u200b\ufeff", max_size=60)
_parameters = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)
_values = st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | _text
_json = _values | st.lists(_values, max_size=3) | st.dictionaries(_text, _values, max_size=3)
_hex = st.binary(min_size=32, max_size=32).map(bytes.hex)


@st.composite
def key_files(draw: st.DrawFn, *, max_size: int = 6) -> KeyFile:
    """Draw a keys file: distinct ids, distinct digests, every field in use."""
    ids = draw(st.lists(st.text(_ID_TEXT, min_size=1, max_size=64), unique=True, max_size=max_size))
    digests = iter(draw(st.lists(_hex, unique=True, min_size=3 * len(ids), max_size=3 * len(ids))))
    records = []
    for key_id in ids:
        olds = draw(st.integers(0, 2))
        records.append(
            KeyRecord(
                id=key_id,
                digest=next(digests),
                prefix=draw(st.text(_ID_TEXT, max_size=8)),
                created=draw(times),
                scopes=draw(st.frozensets(st.sampled_from(("inference", "metrics", "admin")), min_size=1)),
                models=draw(st.none() | st.lists(_text.filter(bool), min_size=1, max_size=3).map(tuple)),
                requests_per_minute=draw(_limits),
                tokens_per_minute=draw(_limits),
                concurrency=draw(_limits),
                monthly_tokens=draw(_limits),
                max_output_tokens=draw(st.none() | st.integers(1, 16_777_216)),
                max_reasoning_tokens=draw(st.none() | st.integers(0, 16_777_216)),
                strip=draw(st.lists(_parameters, max_size=3).map(tuple)),
                defaults=draw(st.none() | st.dictionaries(_parameters, _json, min_size=1, max_size=3)),
                priority=draw(st.sampled_from(("high", "normal", "low"))),
                expires=draw(st.none() | times),
                rotated=draw(st.none() | times),
                note=draw(_text),
                previous=tuple(PreviousSecret(next(digests), draw(times)) for _ in range(olds)),
                rotations=tuple(RotationMark(draw(_hex), draw(_hex)) for _ in range(draw(st.integers(0, 2)))),
            )
        )
    return KeyFile(tuple(records))
