"""The rules for the fields of a key's record, checked when a file is read and on every change.

Maps the fields of the types in `record` to rules. The only module of keys that uses pydantic, which takes 0.1 s to
import and which most of the gateway does not need.
"""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreConfig, core_schema

from llama_gguf.errors import KeysError
from llama_gguf.keys.record import ID_PATTERN, KeyFile, KeyRecord, PreviousSecret, Priority, RotationMark
from llama_gguf.logs import has_control_characters
from llama_gguf.settings.sections.scope import Scope

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION = 1
MAX_PREVIOUS = 16
MAX_ROTATIONS = 16
_MAX_DEFAULTS_CHARACTERS = 4096
_MAX_DEFAULTS_DEPTH = 16
_MAX_DEFAULTS_NUMBER = 2**53

_STRICT = CoreConfig(
    extra_fields_behavior="forbid",
    strict=True,
    revalidate_instances="always",
    hide_input_in_errors=True,  # a value may be a secret in the wrong location
)


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated rule: where, which (pydantic's name of it), and the reason as text. Never quotes the value."""

    location: tuple[int | str, ...]
    rule: str
    reason: str


class ViolationsError(Exception):
    """A keys file violates rules."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__(f"{len(violations)} rules are violated")
        self.violations = violations


@dataclass(frozen=True, slots=True)
class _Document:
    version: int
    keys: tuple[KeyRecord, ...]
    audit_head: str = ""


def check(record: KeyRecord) -> KeyRecord:
    """Return `record` with its times in UTC. Raises KeysError if a field is invalid."""
    try:
        return _record_adapter().validate_python(record)
    except ValidationError as error:
        first = _violations(error)[0]
        raise KeysError(f"{'.'.join(map(str, first.location))}: {first.reason}", code="key-field") from None


def check_document(text: str) -> KeyFile:
    """Return the content of a keys file in JSON. Raises ViolationsError."""
    try:
        found = _document_adapter().validate_json(text)
    except ValidationError as error:
        raise ViolationsError(_violations(error)) from None
    return KeyFile(found.keys, audit_head=found.audit_head)


def _utc(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is None:
        raise ValueError("needs a time zone, for example 2030-01-31T12:00:00Z")
    return value.astimezone(dt.UTC)


def _printable(value: str) -> str:
    if has_control_characters(value):
        raise ValueError("must not contain control characters")
    return value


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if _size(value, 0) > _MAX_DEFAULTS_CHARACTERS:
        raise ValueError(f"must not have more than {_MAX_DEFAULTS_CHARACTERS} characters")
    return value


def _size(value: object, depth: int) -> int:
    """Return roughly how long a value is in JSON. Raises ValueError for what JSON has not, and too many levels."""
    if depth > _MAX_DEFAULTS_DEPTH:
        raise ValueError(f"must not have more than {_MAX_DEFAULTS_DEPTH} levels")
    match value:
        case dict() if all(isinstance(name, str) for name in value):
            return 2 + sum(len(name) + 4 + _size(item, depth + 1) for name, item in value.items())
        case list():
            return 2 + sum(1 + _size(item, depth + 1) for item in value)
        case str():
            return 2 + len(value)
        case None | bool():
            return 4
        case int() if abs(value) < _MAX_DEFAULTS_NUMBER:
            return 10
        case float() if abs(value) < _MAX_DEFAULTS_NUMBER:  # not so for NaN
            return 10
    raise ValueError("must be values of JSON, numbers up to 2^53")


class _Rules:
    """Annotates a dataclass with the rules for its fields; its own annotations are only types."""

    def __init__(self, **rules: object) -> None:
        self.rules = rules

    def __get_pydantic_core_schema__(
        self, kind: type[DataclassInstance], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        checked = []
        for field in fields(kind):
            rule = handler.generate_schema(self.rules[field.name])
            if field.default is not MISSING:
                rule = core_schema.with_default_schema(rule, default=field.default)
            checked.append(core_schema.dataclass_field(field.name, rule, kw_only=False))
        arguments = core_schema.dataclass_args_schema(kind.__name__, checked)
        return core_schema.dataclass_schema(kind, arguments, [*self.rules], slots=True, config=_STRICT)


_KeyId = Annotated[str, Field(pattern=ID_PATTERN)]
_Time = Annotated[dt.datetime, AfterValidator(_utc)]
"""A time with a time zone, converted to UTC."""
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hex."""
_AuditHead = Annotated[str, Field(pattern=r"^(?:[0-9]{1,18}:[0-9a-f]{64})?$")]
_Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,8}$")]
_Limit = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Tokens = Annotated[int, Field(ge=1, le=16_777_216)]
_ReasoningTokens = Annotated[int, Field(ge=0, le=16_777_216)]
_Parameter = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]
_Strip = Annotated[tuple[_Parameter, ...], Field(max_length=64)]
_Defaults = Annotated[dict[_Parameter, Any], Field(min_length=1, max_length=64), AfterValidator(_small)]
_ModelName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
_Models = Annotated[tuple[_ModelName, ...], Field(min_length=1, max_length=256)]
_Note = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
_Scopes = Annotated[frozenset[Scope], Field(min_length=1)]
_Previous = Annotated[PreviousSecret, _Rules(digest=_Digest, valid_until=_Time)]
_Rotation = Annotated[RotationMark, _Rules(request=_Digest, nonce=_Digest)]
_Record = Annotated[
    KeyRecord,
    _Rules(
        id=_KeyId,
        digest=_Digest,
        prefix=_Prefix,
        created=_Time,
        scopes=_Scopes,
        models=_Models | None,
        requests_per_minute=_Limit | None,
        tokens_per_minute=_Limit | None,
        concurrency=_Limit | None,
        monthly_tokens=_Limit | None,
        max_output_tokens=_Tokens | None,
        max_reasoning_tokens=_ReasoningTokens | None,
        strip=_Strip,
        defaults=_Defaults | None,
        priority=Priority,
        expires=_Time | None,
        rotated=_Time | None,
        note=_Note,
        previous=Annotated[tuple[_Previous, ...], Field(max_length=MAX_PREVIOUS)],
        rotations=Annotated[tuple[_Rotation, ...], Field(max_length=MAX_ROTATIONS)],
    ),
]
_CheckedDocument = Annotated[_Document, _Rules(version=Literal[1], keys=tuple[_Record, ...], audit_head=_AuditHead)]


@functools.cache
def _record_adapter() -> TypeAdapter[KeyRecord]:
    return TypeAdapter(_Record)  # takes ten milliseconds


@functools.cache
def _document_adapter() -> TypeAdapter[_Document]:
    return TypeAdapter(_CheckedDocument)


_REASONS = {
    "missing": "is missing",
    "string_pattern_mismatch": "has the wrong form",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "too_long": "has too many entries",
    **dict.fromkeys(("extra_forbidden", "unexpected_keyword_argument"), "no such field"),
    **dict.fromkeys(("int_type", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("tuple_type", "frozen_set_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "dataclass_type", "dataclass_exact_type"), "must be an object"),
}


def _violations(error: ValidationError) -> list[Violation]:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [Violation(item["loc"], item["type"], _reason(item["type"], item["msg"])) for item in found]


def _reason(kind: str, message: str) -> str:
    return _REASONS.get(kind) or message.removeprefix("Value error, ").replace("Input should", "should").replace(
        "String should", "should"
    )
