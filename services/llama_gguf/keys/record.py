"""One API key as the keys file holds it: a digest and what the key may do, never the key itself.

Owns the record type and the rules each field obeys (`check` applies them; so does the grammar when it reads a file).
The operations on records are pure and know no file.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from llama_gguf.errors import KeysError
from llama_gguf.settings import auth

Scope = auth.Scope
Priority = Literal["high", "normal", "low"]

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
MAX_PREVIOUS = 16
MAX_ROTATIONS = 16

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
STRICT = ConfigDict(  # for reading; errors must not quote values, which may be secrets in the wrong place
    extra="forbid", strict=True, revalidate_instances="always", hide_input_in_errors=True
)


def _utc(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is None:
        raise ValueError("needs a time zone, for example 2030-01-31T12:00:00Z")
    return value.astimezone(dt.UTC)


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


Time = Annotated[dt.datetime, AfterValidator(_utc)]
"""A moment with a time zone, kept in UTC."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hex."""
Limit = Annotated[int, Field(ge=1, le=1_000_000_000)]
ModelName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]


@dataclass(frozen=True, slots=True)
class PreviousSecret:
    """The digest a rotation replaced, still accepted until `valid_until` (UTC)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    digest: Digest
    valid_until: Time


@dataclass(frozen=True, slots=True)
class RotationMark:
    """Trace of a rotation made with a request id, by which a repetition is recognised (see `keys.secret`)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    request: Digest  # HMAC of the request id, not the id itself
    nonce: Digest


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key: who it is (`id`), how to recognise it (`digest`, SHA-256 in hex) and what it may do.

    Limits that are None fall back to the `limits` section; `models` None allows every model. All times are UTC.
    The annotations are applied by `check`, not by the constructor.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    digest: Digest
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,8}$")]  # for finding the key in a list
    created: Time
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = frozenset({"inference"})
    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=256)] | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrency: Limit | None = None
    monthly_tokens: Limit | None = None
    priority: Priority = "normal"
    expires: Time | None = None
    rotated: Time | None = None
    note: Annotated[str, Field(max_length=500), AfterValidator(_printable)] = ""
    previous: Annotated[tuple[PreviousSecret, ...], Field(max_length=MAX_PREVIOUS)] = ()
    rotations: Annotated[tuple[RotationMark, ...], Field(max_length=MAX_ROTATIONS)] = ()  # newest first

    def digests(self) -> Iterator[str]:
        """Yield the digest of every secret of this key, the current one first."""
        yield self.digest
        for secret in self.previous:
            yield secret.digest


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The content of a keys file. `plaintext` says that it is written in the old format, which holds the keys."""

    records: tuple[KeyRecord, ...] = ()
    plaintext: bool = False

    def find(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None."""
        return next((record for record in self.records if record.id == key_id), None)


@functools.cache
def _rules() -> TypeAdapter[KeyRecord]:
    return TypeAdapter(KeyRecord)  # made when first needed: it takes ten milliseconds


def check(record: KeyRecord) -> KeyRecord:
    """Return `record` with its times in UTC. Raises KeysError if a field breaks its rule."""
    try:
        return _rules().validate_python(record)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise KeysError(f"{place}: {reason(first['type'], first['msg'])}", code="key-field") from None


_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "no such field",
    "unexpected_keyword_argument": "no such field",
    "string_pattern_mismatch": "has the wrong form",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
    "too_short": "must not be empty",
    "too_long": "has too many entries",
    "dataclass_type": "must be an object",
    "dataclass_exact_type": "must be an object",
}


def reason(kind: str, message: str) -> str:
    """Say in plain words what pydantic found. Never quotes the value: it may be a secret in the wrong place."""
    return _REASONS.get(kind) or message.removeprefix("Value error, ").replace("Input should", "should").replace(
        "String should", "should"
    )
