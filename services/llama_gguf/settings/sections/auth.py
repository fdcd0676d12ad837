"""`auth`: who may call."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llama_gguf.settings.sections.base import EnvName, HeaderName, PathText, SecretFile, Section
from llama_gguf.settings.sections.scope import Scope


class Bootstrap(Section):
    """Where the first key comes from on a machine without a shell."""

    env: EnvName | None = Field(None, description="Variable that holds the first API key.")
    file: SecretFile | None = Field(None, description="File (a mounted secret) that holds the first API key.")
    generate: bool = Field(
        False, description="Generate a key at the first start and print it once, if the keys file has none."
    )
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = Field(
        ("inference",), description="Scopes of the first key: `inference`, `metrics`, `admin`."
    )


class Auth(Section):
    """API keys. With `enabled: true` and no valid key, every request is rejected."""

    enabled: bool = Field(True, description="Require an API key for every inference route.")
    keys_file: PathText | None = Field(None, description="File of hashed API keys; default DATA_DIR/keys.json.")
    extra_header: HeaderName | None = Field(
        None, description="Additional header that can carry the key, besides `Authorization` and `x-api-key`."
    )
    bootstrap: Bootstrap = Field(default_factory=Bootstrap, description="Where the first key comes from.")
    audit_file: PathText | None = Field(
        None, description="Hash-chained log of key changes and admin calls; default DATA_DIR/audit.jsonl."
    )
    reload_interval_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        0.5, description="Interval at which the keys file is checked for changes."
    )
