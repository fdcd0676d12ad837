"""One API key as the keys file holds it: a digest and what the key may do, never the key itself.

Owns the record type; the operations on records are pure and know no file.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

Scope = Literal["inference", "metrics", "admin"]
Priority = Literal["high", "normal", "low"]


@dataclass(frozen=True, slots=True)
class PreviousSecret:
    """The digest a rotation replaced, still accepted until `valid_until` (UTC)."""

    digest: str
    valid_until: dt.datetime


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key: who it is (`id`), how to recognise it (`digest`, SHA-256 in hex) and what it may do.

    Limits that are None fall back to the `limits` section; `models` None allows every model. All times are UTC.
    """

    id: str
    digest: str
    prefix: str  # first characters of the key, for finding it in a list
    created: dt.datetime
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    monthly_tokens: int | None = None
    priority: Priority = "normal"
    expires: dt.datetime | None = None
    rotated: dt.datetime | None = None
    rotation_id: str = ""  # --request-id of the last rotation
    note: str = ""
    previous: tuple[PreviousSecret, ...] = ()
