"""One API key in the keys file: its digest, scopes and limits, never the key itself.

Owns the record type. The rules for its fields are in `validation`. Pure, and knows no file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_gguf.settings.sections.scope import Scope

Priority = Literal["high", "normal", "low"]

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


@dataclass(frozen=True, slots=True)
class PreviousSecret:
    """The digest a rotation replaced, still accepted until `valid_until` (UTC)."""

    digest: str
    valid_until: dt.datetime


@dataclass(frozen=True, slots=True)
class RotationMark:
    """A rotation with a request id, to recognise its repetition (see `keys.secret`)."""

    request: str  # HMAC of the request id, not the id itself
    nonce: str


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key: its id, the SHA-256 of its secret in hex, its scopes and limits.

    Limits that are None fall back to the `limits` section; `models` None allows every model. What a request gets
    (`defaults`), at most asks for (`max_…`) and loses (`strip`) adds to the model's own rules. All times are UTC.
    The constructor checks nothing; `validation.check` does.
    """

    id: str
    digest: str
    prefix: str  # for finding the key in a list
    created: dt.datetime
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    monthly_tokens: int | None = None
    max_output_tokens: int | None = None
    max_reasoning_tokens: int | None = None
    strip: tuple[str, ...] = ()
    defaults: dict[str, Any] | None = field(default=None, hash=False)  # JSON values by parameter
    priority: Priority = "normal"
    expires: dt.datetime | None = None
    rotated: dt.datetime | None = None
    note: str = ""
    previous: tuple[PreviousSecret, ...] = ()
    rotations: tuple[RotationMark, ...] = ()  # newest first

    def digests(self) -> Iterator[str]:
        """Yield the digest of every secret of this key, the current one first."""
        yield self.digest
        for secret in self.previous:
            yield secret.digest


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The content of a keys file. `plaintext`: it is in the old format, which contains the keys themselves.

    `audit_head` is the entry of the audit log that records the last change, as SEQ:HASH: a log that was cut before it,
    together with its head file, shows against it.
    """

    records: tuple[KeyRecord, ...] = ()
    plaintext: bool = False
    audit_head: str = ""

    def find(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None."""
        return next((record for record in self.records if record.id == key_id), None)
