"""Models at HTTP URLs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from llama_gguf.logs import fields
from llama_gguf.models.checksum import checked_digest
from llama_gguf.models.download.download import download, prepare_directory
from llama_gguf.models.download.room import Missing
from llama_gguf.models.download.spec import Remote
from llama_gguf.models.fetch_context import FetchContext
from llama_gguf.models.source import AtUrl, Wanted, split_names
from llama_gguf.settings.redaction import url_without_secrets

log = logging.getLogger(__name__)


def fetch_url(wanted: Wanted, origin: AtUrl, context: FetchContext) -> Path:
    """Download the file at `origin.url`, or all parts of a split one; return the path of the first.

    A file on disk is not requested again, because a URL names one file for ever; a new version has a new URL.
    """
    prepare_directory(origin.path.parent)
    for path, remote in parts_at_url(wanted, origin, context):
        if not _is_present(path, remote.sha256, context):
            _fetch_one(remote, path, context)
    return origin.path


def missing_at_url(wanted: Wanted, origin: AtUrl, context: FetchContext) -> list[Missing]:
    """Return the parts that are not on disk, with their sizes as the server says them. Raises as a download does."""
    from llama_gguf.models.download.probe import remote_size  # noqa: PLC0415 - pulls in an HTTP client

    return [
        Missing(path, remote_size(remote, context.network))
        for path, remote in parts_at_url(wanted, origin, context)
        if not path.exists()
    ]


def parts_at_url(wanted: Wanted, origin: AtUrl, context: FetchContext) -> Iterator[tuple[Path, Remote]]:
    """Yield where each part is stored and where it is requested."""
    token = context.token(wanted)
    headers = context.network.credentials(origin.url, token.value if token else None)
    for number, name in enumerate(split_names(origin.path.name)):
        url = _sibling(origin.url, name) if number else origin.url
        sha256 = wanted.sha256 if number == 0 else None  # the setting is that of the first part
        source = token.source if token else ""
        yield (
            origin.path.with_name(name),
            Remote(url, url_without_secrets(url), headers, sha256=sha256, token_source=source, setting=wanted.setting),
        )


def _is_present(path: Path, sha256: str | None, context: FetchContext) -> bool:
    if not path.exists():
        return False
    if sha256 is None or checked_digest(path, sha256, context.verified, context.reporter) == sha256:
        return True
    log.warning("the file does not have the configured SHA-256 and is downloaded again", extra=fields(path=str(path)))
    return False


def _fetch_one(remote: Remote, path: Path, context: FetchContext) -> None:
    with context.lock(path, path.name):
        if not _is_present(path, remote.sha256, context):  # the other worker can have downloaded it
            download(remote, path, context.reporter, context.connections, network=context.network)
            if remote.sha256:
                context.verified.add(path, remote.sha256)


def _sibling(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rsplit("/", 1)[0] + "/" + name))
