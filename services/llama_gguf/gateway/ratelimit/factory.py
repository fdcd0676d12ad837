"""Creates the store that the settings name: in memory, or a shared one that falls back to memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llama_gguf.errors import ConfigError
from llama_gguf.gateway.ratelimit.fallback_store import FallbackStore
from llama_gguf.gateway.ratelimit.memory_store import LocalStore
from llama_gguf.gateway.ratelimit.store import Store
from llama_gguf.settings.redaction import shown_variable

if TYPE_CHECKING:
    from llama_gguf.settings.sections.limits import Limits


def open_store(
    limits: Limits,
    password: str | None = None,
    *,
    month_tokens: Callable[[str], int] = lambda _: 0,
    on_state: Callable[[bool], None] = lambda _up: None,
    on_failure: Callable[[], None] = lambda: None,
) -> Store:
    """Return the store that `limits.store` names, not connected yet.

    `password` is the value of the variable that `limits.store_password_env` names. `on_state` is called when a shared
    store becomes unreachable or reachable, `on_failure` for every failed call to it. Raises ConfigError.
    """
    local = LocalStore(month_tokens=month_tokens)
    if limits.store == "memory":
        return local
    if limits.store_password_env is not None and not password:
        raise ConfigError(
            f"limits.store_password_env: the variable {shown_variable(limits.store_password_env)} is not set",
            hint="set it in the environment of `llama-gguf up`, or remove the setting if the store has no password",
        )
    try:
        from llama_gguf.gateway.ratelimit.redis_store import SharedStore  # noqa: PLC0415 - 100 ms of imports that only some need
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"limits.store: a shared store needs the Python package {error.name!r}, which is not installed",
            hint='pip install "llama-gguf-inference[redis]", or use `memory`',
        ) from error
    return FallbackStore(SharedStore(limits.store, password), local, on_state=on_state, on_failure=on_failure)
