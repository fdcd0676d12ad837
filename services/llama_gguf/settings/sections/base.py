"""The base of every settings section, and the field types they share.

A section is a frozen pydantic model that rejects unknown keys; every field has a default (or none on purpose) and
one sentence of description, from which the schema, the reference and the README are generated.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from llama_gguf.settings.redaction import looks_like_secret


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys are errors, values are not coerced across types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
    )


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _clean_text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


def _env_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) or looks_like_secret(value):
        raise ValueError("must be the name of an environment variable (letters, digits, underscores), not its value")
    return value


def _secret_file(value: str) -> str:
    if looks_like_secret(PurePath(value).name) and "." not in value:
        raise ValueError("must be the path of a file that holds the key, not the key itself")
    return _clean_text(value)


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", value):
        raise ValueError("must be an HTTP header name")
    return value


def pattern_message(message: str, **schema: JsonValue) -> dict[str, JsonValue]:
    """Return schema extras: `message` is shown instead of the bare pattern, by us and by editors."""
    return {"patternErrorMessage": message, **schema}


_PRINTABLE = r"^(?=.*\S)[^\u0000-\u001f\u007f]*$"
Text = Annotated[str, AfterValidator(_clean_text), Field(json_schema_extra={"minLength": 1, "pattern": _PRINTABLE})]
"""Non-empty text without control characters."""
PathText = Annotated[
    str,
    AfterValidator(_clean_text),
    Field(json_schema_extra={"format": "path", "minLength": 1, "pattern": _PRINTABLE}),
]
"""A file system path; `~` and variables are not expanded, a relative one is resolved from `up`'s working directory."""
SecretFile = Annotated[
    str,
    AfterValidator(_secret_file),
    Field(json_schema_extra={"format": "path", "minLength": 1, "pattern": _PRINTABLE}),
]
"""The path of a file that holds a secret; a secret in its place is refused, so that no message can quote it."""
EnvName = Annotated[
    str,
    AfterValidator(_env_name),
    Field(json_schema_extra=pattern_message("the name of an environment variable", pattern="^[A-Za-z_][A-Za-z0-9_]*$")),
]
HeaderName = Annotated[
    str,
    AfterValidator(_header_name),
    Field(json_schema_extra=pattern_message("an HTTP header name", pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Sha256 = Annotated[
    str,
    Field(pattern=r"^[0-9a-f]{64}$", json_schema_extra=pattern_message("a SHA-256: 64 lower-case hexadecimal digits")),
]
