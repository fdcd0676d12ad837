"""What each field of a key's record must be, as pydantic checks it: on reading a file and on every change.

The annotations of `record` are these names; pydantic finds them here (`rules_of`). Apart from `record`, because most of
the gateway needs records and not the rules, and pydantic takes 0.1 s to import.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from llama_gguf.errors import KeysError
from llama_gguf.keys.record import ID_PATTERN, KeyRecord, PreviousSecret, RotationMark
from llama_gguf.settings.sections.scope import Scope

T = TypeVar("T")

MAX_PREVIOUS = 16
MAX_ROTATIONS = 16

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _utc(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is None:
        raise ValueError("needs a time zone, for example 2030-01-31T12:00:00Z")
    return value.astimezone(dt.UTC)


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


KeyId = Annotated[str, Field(pattern=ID_PATTERN)]
Time = Annotated[dt.datetime, AfterValidator(_utc)]
"""A moment with a time zone, kept in UTC."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hex."""
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,8}$")]
Limit = Annotated[int, Field(ge=1, le=1_000_000_000)]
ModelName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
Models = Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=256)]
Note = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Scopes = Annotated[frozenset[Scope], Field(min_length=1)]
Previous = Annotated[tuple[PreviousSecret, ...], Field(max_length=MAX_PREVIOUS)]
Rotations = Annotated[tuple[RotationMark, ...], Field(max_length=MAX_ROTATIONS)]


def rules_of(kind: type[T]) -> TypeAdapter[T]:
    """Return what checks values of `kind`, whose annotations may use the names above. Takes ten milliseconds."""
    adapter = TypeAdapter(kind)
    adapter.rebuild(_types_namespace=globals())
    return adapter


@functools.cache
def _rules() -> TypeAdapter[KeyRecord]:
    return rules_of(KeyRecord)


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
