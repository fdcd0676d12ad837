"""The bearer tokens of downloads: from a variable, or where Hugging Face's own tools look, in their order.

The same token is used for the hub's metadata and for the bytes of its files. A token is never part of a message; the
place it came from is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_gguf.errors import ConfigError
from llama_gguf.settings.environment_value import clean, secret
from llama_gguf.settings.redaction import shown_secret_file, shown_variable

HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Variables of the hub's token, the first that is set counts."""
TOKEN_FILE_VARIABLE = "HF_TOKEN_PATH"  # noqa: S105 - a name
_SENDABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the variable or file that it came from."""

    value: str = field(repr=False)
    source: str


def valid_token(variable: str, env: Mapping[str, str]) -> str | None:
    """Return the token in `variable`, None if it is not set. Raises ConfigError for what is none."""
    token = secret(env, variable)
    return _checked(token, shown_variable(variable)) if token else None


def hub_token(env: Mapping[str, str]) -> Token | None:
    """Return the token for the hub, None without one. Raises ConfigError for what is none or cannot be read."""
    for name in HUB_TOKENS:
        if token := valid_token(name, env):
            return Token(token, name)
    path = token_file(env)
    shown = shown_secret_file(str(path))
    try:
        text = clean(path.read_text(encoding="utf-8")).text
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "it is not a text"
        raise ConfigError(
            f"{shown}: the hub's token cannot be read: {reason}",
            hint="make the file readable by the user the appliance runs as, or set HF_TOKEN",
        ) from error
    return Token(_checked(text, shown), shown) if text else None


def missing_token_file(env: Mapping[str, str]) -> str:
    """Return the file that HF_TOKEN_PATH names, if it does not exist and no variable has a token; else ""."""
    if any(secret(env, name) for name in HUB_TOKENS) or not clean(env.get(TOKEN_FILE_VARIABLE, "")).text:
        return ""
    path = token_file(env)
    try:
        path.stat()
    except FileNotFoundError:
        return shown_secret_file(str(path))
    except OSError:  # reading it reports the reason
        return ""
    return ""


def token_file(env: Mapping[str, str]) -> Path:
    """Return the file in which the hub's own login stores its token."""
    if explicit := clean(env.get(TOKEN_FILE_VARIABLE, "")).text:
        return _expanded(explicit, env)
    if home := clean(env.get("HF_HOME", "")).text:
        return _expanded(home, env) / "token"
    cache = clean(env.get("XDG_CACHE_HOME", "")).text or "~/.cache"
    return _expanded(cache, env) / "huggingface" / "token"


def _expanded(path: str, env: Mapping[str, str]) -> Path:
    """Return `path` with the home directory of `env`: that of the account, if it has none."""
    if home := env.get("HOME", ""):
        path = re.sub(r"^~(?=/|$)", lambda _: home, path)
    try:
        return Path(path).expanduser()
    except RuntimeError:  # an account without a home directory, as of a container that runs under any number
        return Path(path)


def _checked(token: str, source: str) -> str:
    if not _SENDABLE.fullmatch(token):
        raise ConfigError(
            f"{source}: the token contains blanks or characters that no token has",
            hint="copy it again; a variable has one token, on one line",
        )
    return token
