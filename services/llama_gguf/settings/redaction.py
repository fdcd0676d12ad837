"""What must not be shown: secrets by the name they have, by their shape, and in URLs. Pure. The only owner of masking.

Settings contain no secrets by design; this is for those put there anyway, as a token where a variable's name belongs,
and for reports that quote logs and other programs. Of environment variables, `shown_environment` says what is shown.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

if TYPE_CHECKING:
    from pydantic import JsonValue

MASK = "***"
_SECRET_NAME = re.compile(
    r"(?:^|[_.\-\s])(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?keys?|keys?|credentials?|bearer|cookie|pat)$"
    r"|password|passwd|passphrase|secret|apikey|private[_-]?key|access[_-]?key|account[_-]?key|auth[_-]?token"
    r"|connection[_-]?string|webhook|licen[cs]e[_-]?key|(?:token|pass|[^d]pwd|dsn)$",
    re.IGNORECASE,
)
_NOT_SECRET_NAME = re.compile(r"(?:_env|_file|_path|_dir|_label|_id|_enabled|_name|_url)$", re.IGNORECASE)
_SIGNATURES = {"sig", "signature", "x-amz-signature", "x-goog-signature", "x-amz-security-token", "x-amz-credential"}
_QUERY_SECRETS = {"token", "access_token", "api_key", "apikey", "key", "password", "auth", "authorization", "secret"}
# A password can contain `/`, `?` and `@`, so with a colon everything up to the last @ of the word is masked.
_USERINFO = re.compile(r"""([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s"'<>@]*:[^\s"'<>]*|[^/\s@?#"'<>]+)@""")
_QUERY = re.compile(
    rf"([?&](?:{'|'.join(map(re.escape, sorted(_SIGNATURES | _QUERY_SECRETS)))})=)[^&\s\"'#]+", re.IGNORECASE
)
_YAML_ENTRY = re.compile(r"""^(\s*(?:-\s+)?["']?([\w.-]+)["']?\s*:\s+)(\S.*)$""")
_ARGUMENT = re.compile(r"""(--?(?:api[-_]key|hf[-_]token|hft)["']?(?:\s*[,=]\s*|\s+)["']?)[^"'\s,\]]+""")
_NUMBER = re.compile(r"[-+.\d_]+")
_AUTHORIZATION = re.compile(r"""(\b(?:Authorization["']?:\s*["']?(?:\w+\s+)?|Bearer\s+))[^\s"',]{4,}""", re.IGNORECASE)
_ASSIGNED = re.compile(r"""([\w.-]+)(["']?\s?[=:]\s?["']?)(?![{\[])([^;\s&"',}\]]+)""")
_WEBHOOK = re.compile(r"""(https?://[^\s/"']*hooks?\.[^\s/"']+/|/webhooks?/)[^\s"'<>]+""", re.IGNORECASE)
_KEY_PREFIX = (
    r"sk-|sk_live_|rk_live_|hf_|rpa_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|nvapi-|gsk_|npm_|pypi-|dckr_pat_"
    r"|AKIA|AIza|eyJ"
)
_KEY_SHAPED = re.compile(rf"(?:(?<![A-Za-z0-9_-])|(?<=%[0-9A-Fa-f]{{2}}))({_KEY_PREFIX})[A-Za-z0-9_.~+=-]{{8,}}")
_RUN = re.compile(r"[A-Za-z0-9+/=]{16,}")
_RANDOM_CHANGES = 5
_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*|RUNPOD_SECRET_\w+")
_SHORTEST = 4


def is_secret_name(name: str) -> bool:
    """Return whether a setting or variable of this name can hold a secret (`X_FILE` and `X_ENV` only refer to one)."""
    return bool(_SECRET_NAME.search(name)) and not _NOT_SECRET_NAME.search(name)


def looks_like_secret(text: str) -> bool:
    """Return whether `text` is shaped like a key: a known prefix, or a long run of random letters and digits."""
    return bool(_KEY_SHAPED.search(text)) or any(_is_random(run) for run in _RUN.findall(text))


def _is_random(run: str) -> bool:
    """Return whether letters, capitals and digits alternate more often than in words, also in MixedCaseOnes."""
    kinds = ["d" if one.isdigit() else "u" if one.isupper() else "l" for one in run]
    pairs = itertools.pairwise(kinds)
    return sum(left != right and (left, right) != ("u", "l") for left, right in pairs) >= _RANDOM_CHANGES


def shown_variable(name: str) -> str:
    """Return the name of a variable for messages; MASK if it can be the secret itself, pasted in the wrong place."""
    return name if _VARIABLE_NAME.fullmatch(name) and not looks_like_secret(name) else MASK


def shown_secret_file(path: str) -> str:
    """Return the path of a file that holds a secret, for messages; MASK if it can be the secret itself."""
    return path if "/" in path and not looks_like_secret(path) else MASK


def mask_text(text: str) -> str:
    """Return `text` without credentials in URLs, values assigned to secret names, and words shaped like known keys."""
    text = _USERINFO.sub(rf"\1{MASK}@", text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    text = _ARGUMENT.sub(rf"\1{MASK}", text)
    text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    text = _WEBHOOK.sub(rf"\1{MASK}", text)
    text = _KEY_SHAPED.sub(rf"\1{MASK}", text)
    return _mask_assigned(text)


def _mask_assigned(text: str) -> str:
    """Mask the value in `NAME=VALUE` and `NAME: VALUE` for secret names, also where that is the value of another."""
    parts, position = [], 0
    while found := _ASSIGNED.search(text, position):
        name, _, value = found.groups()
        harmless = name.lower() in {"key", "keys"} or _NUMBER.fullmatch(value) or value.startswith(MASK)
        masked = not harmless and (name.lower() == "pwd" or is_secret_name(name))
        parts.append(text[position : found.start(3)] + (MASK if masked else ""))
        position = found.end(3) if masked else found.start(3)
    return "".join(parts) + text[position:]


def mask_known(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without `secrets`, whose values are known: as they are, percent-encoded and in base64."""
    for secret in sorted(secrets, key=len, reverse=True):
        encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
        for form in (secret, quote(secret, safe=""), quote_plus(secret), encoded):
            if len(form) >= _SHORTEST:
                text = text.replace(form, MASK)
    return text


def mask_line(line: str, *, whole_value: bool = False) -> str:
    """Return a line of YAML without secrets; the columns of its keys do not change."""
    found = _YAML_ENTRY.match(line)
    if found and whole_value:
        plain = found[3].strip("\"' \r")
        harmless = plain == (
            shown_secret_file(plain) if found[2] == "file" and plain[:1] == "/" else shown_variable(plain)
        )
        return line if harmless else found[1] + MASK
    if found and (is_secret_name(found[2]) and not _NUMBER.fullmatch(found[3])):
        return found[1] + MASK
    if whole_value and not found:  # the value alone: of a text over several lines, or an item of a list
        return MASK
    return mask_text(line)


def mask_value(name: str, value: JsonValue) -> JsonValue:
    """Return a JSON value that can be shown, masked if `name` or a name inside it denotes a secret."""
    if isinstance(value, dict):
        return {key: mask_value(str(key), child) for key, child in value.items()}
    if isinstance(value, list):
        return [mask_value(name, child) for child in value]
    if not isinstance(value, str):
        return value
    if name == "env" or name.endswith("_env"):
        return shown_variable(value)
    return MASK if is_secret_name(name) else mask_text(value)


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


def url_without_secrets(url: str) -> str:
    """Return `url` without user, password, query and fragment, each of which can be secret."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
