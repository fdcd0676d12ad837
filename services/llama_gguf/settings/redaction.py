"""What must not be shown: values of names that denote secrets, and credentials in URLs. Pure.

Settings contain no secrets by design; this is for those put there anyway, and for listings of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from pydantic import JsonValue

MASK = "***"
_SECRET_NAME = re.compile(
    r"(?:^|[_.\-\s])(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?keys?|keys?|credentials?|bearer|cookie|pat)$"
    r"|password|passwd|secret|apikey|private[_-]?key|access[_-]?key|auth[_-]?token",
    re.IGNORECASE,
)
_NOT_SECRET_NAME = re.compile(r"(?:_env|_file|_path|_dir|_label|_id|_enabled|_name|_url)$", re.IGNORECASE)
_SIGNATURES = {"sig", "signature", "x-amz-signature", "x-goog-signature", "x-amz-security-token", "x-amz-credential"}
_QUERY_SECRETS = {"token", "access_token", "api_key", "apikey", "key", "password", "auth", "authorization", "secret"}
_USERINFO = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@?#]+@")
_QUERY = re.compile(
    rf"([?&](?:{'|'.join(map(re.escape, sorted(_SIGNATURES | _QUERY_SECRETS)))})=)[^&\s\"'#]+", re.IGNORECASE
)
_YAML_ENTRY = re.compile(r"""^(\s*(?:-\s+)?["']?([\w.-]+)["']?\s*:\s+)(\S.*)$""")
_ARGUMENT = re.compile(r"""(--?(?:api[-_]key|hf[-_]token|hft)["']?(?:\s*[,=]\s*|\s+)["']?)[^"'\s,\]]+""")
_NUMBER = re.compile(r"[-+.\d_]+")
_KEY_SHAPED = re.compile(r"\b(sk-|hf_|rpa_|ghp_|gho_|github_pat_)[A-Za-z0-9_-]{8,}")


def is_secret_name(name: str) -> bool:
    """Return whether a setting or variable of this name can hold a secret (`X_FILE` and `X_ENV` only refer to one)."""
    return bool(_SECRET_NAME.search(name)) and not _NOT_SECRET_NAME.search(name)


def mask_text(text: str) -> str:
    """Return `text` without credentials in URLs and without words in the format of well-known keys."""
    text = _USERINFO.sub(rf"\1{MASK}@", text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    text = _ARGUMENT.sub(rf"\1{MASK}", text)
    return _KEY_SHAPED.sub(rf"\1{MASK}", text)


def mask_line(line: str, *, whole_value: bool = False) -> str:
    """Return a line of YAML without secrets; the columns of its keys do not change."""
    found = _YAML_ENTRY.match(line)
    if found and (whole_value or (is_secret_name(found[2]) and not _NUMBER.fullmatch(found[3]))):
        return found[1] + MASK
    return mask_text(line)


def mask_value(name: str, value: JsonValue) -> JsonValue:
    """Return a JSON value that can be shown, masked if `name` or a name inside it denotes a secret."""
    if isinstance(value, dict):
        return {key: mask_value(str(key), child) for key, child in value.items()}
    if isinstance(value, list):
        return [mask_value(name, child) for child in value]
    if not isinstance(value, str):
        return value
    return MASK if is_secret_name(name) else mask_text(value)


def masked_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, sorted, with secrets masked."""
    return {name: str(mask_value(name, env[name])) for name in sorted(env)}


def url_secrets(url: str) -> Iterator[str]:
    """Yield the kinds of secrets in `url`: `password`, `token` or `signature`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.username or parts.password:
        yield "password"
    names = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if names & _QUERY_SECRETS:
        yield "token"
    if names & _SIGNATURES:
        yield "signature"
