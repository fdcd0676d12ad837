"""`LLAMA_GGUF__A__B` -> the path in the tree, as pydantic-settings parses nested names.

Separate from `environment`, because importing pydantic-settings takes 50 ms and most starts set no such variable.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import create_model
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from llama_gguf.settings.schema_tree import ENV_DELIMITER, ENV_PREFIX
from llama_gguf.settings.sections.settings import Settings


def nested(name: str, text: str) -> dict[str, Any]:
    """Return a tree with `text` as its only leaf, at the path of the variable `name`; {} for an unknown section."""
    return _Names(_names_model(), name, text)()


class _Names(EnvSettingsSource):
    """pydantic-settings' parser of nested names, applied to one variable instead of os.environ."""

    def __init__(self, model: type[BaseSettings], name: str, text: str) -> None:
        self._given = {name.lower(): text}
        super().__init__(model)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given


class _Base(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, case_sensitive=False, enable_decoding=False
    )


@functools.cache
def _names_model() -> type[BaseSettings]:
    fields: dict[str, Any] = {name: (info.annotation, None) for name, info in Settings.model_fields.items()}
    return create_model("_Environment", __base__=_Base, **fields)
