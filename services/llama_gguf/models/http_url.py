"""Models at plain HTTP addresses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from llama_gguf.errors import ConfigError
from llama_gguf.logs import fields
from llama_gguf.models.checksum import file_sha256
from llama_gguf.models.download.download import download, prepare_directory
from llama_gguf.models.download.lock import hold
from llama_gguf.models.download.spec import Remote
from llama_gguf.models.fetch_context import Means
from llama_gguf.models.source import AtUrl, Wanted, public_url, split_names

log = logging.getLogger(__name__)


def fetch_url(wanted: Wanted, origin: AtUrl, means: Means) -> Path:
    """Have the file at `origin.url`, all parts of a split one, on disk; return the path of the first.

    What is there is not asked for again, because an address names one file for ever; a new version has a new address.
    """
    headers = _authorization(wanted, means.env)
    prepare_directory(origin.path.parent)
    for number, name in enumerate(split_names(origin.path.name)):
        path = origin.path.with_name(name)
        url = _sibling(origin.url, name) if number else origin.url
        sha256 = wanted.sha256 if number == 0 else None  # the setting speaks of one file
        remote = Remote(url, public_url(url), headers, sha256=sha256)
        if not _have(path, sha256, means):
            _fetch_one(remote, path, means)
    return origin.path


def _have(path: Path, sha256: str | None, means: Means) -> bool:
    if not path.exists():
        return False
    if sha256 is None or means.verified.knows(path, sha256):
        return True
    means.reporter.phase("verifying", f"checking the SHA-256 of {path.name}")
    if file_sha256(path, means.reporter) == sha256:
        means.verified.remember(path, sha256)
        return True
    log.warning("the file has another SHA-256 than wanted and is fetched anew", extra=fields(path=str(path)))
    return False


def _fetch_one(remote: Remote, path: Path, means: Means) -> None:
    def waiting() -> None:
        means.reporter.phase("downloading", f"another worker is fetching {path.name}; waiting for it")

    with hold(path.with_name(path.name + ".lock"), on_wait=waiting):
        if not _have(path, remote.sha256, means):  # the other worker may have fetched it
            download(remote, path, means.reporter, means.connections)
            if remote.sha256:
                means.verified.remember(path, remote.sha256)


def _authorization(wanted: Wanted, env: Mapping[str, str]) -> dict[str, str]:
    if wanted.token_env is None:
        return {}
    token = env.get(wanted.token_env, "").strip()
    if not token:
        raise ConfigError(
            f"{wanted.setting}.token_env: the variable {wanted.token_env} is not set",
            hint="set it to the token, or remove the setting",
        )
    return {"Authorization": f"Bearer {token}"}


def _sibling(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rsplit("/", 1)[0] + "/" + name))
