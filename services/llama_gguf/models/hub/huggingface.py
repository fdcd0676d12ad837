"""Models in Hugging Face repositories, stored in the Hub's own cache layout.

A model on disk starts without the Hub: for a pinned commit it is not contacted, and for a branch or tag its failure is
a warning. huggingface_hub (imported only when needed) fetches the files' metadata; their bytes are downloaded by
`download`, because huggingface_hub uses one connection and a new process cannot resume its downloads. Files in Xet
storage are downloaded in the same way: the Hub redirects to a signed URL that supports ranges. Xet's own transfer is
used on request (HF_XET_HIGH_PERFORMANCE) and for files too large for plain HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.logs import fields
from llama_gguf.models.download.download import download, prepare_directory
from llama_gguf.models.download.room import Missing
from llama_gguf.models.download.spec import Remote
from llama_gguf.models.fetch_context import FetchContext
from llama_gguf.models.hub.cache_layout import (
    COMMIT,
    find_cached,
    prepare,
    publish,
    repository,
    snapshots,
    spelled_differently,
)
from llama_gguf.models.hub.file import HubFile, HubMetadata, fetch_metadata, translated, use_network
from llama_gguf.models.model_files import Reporter
from llama_gguf.models.source import OnHub, Wanted, split_names
from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.words import TRUE_WORDS
from llama_gguf.states import Phase

log = logging.getLogger(__name__)

_MAX_HTTP_BYTES = 50_000_000_000  # larger files are served only by Xet


def fetch_hub(wanted: Wanted, origin: OnHub, context: FetchContext) -> Path:
    """Download the file, or all parts of a split one; return the path of the first."""
    cached = find_cached(origin)
    if cached and spelled_differently(cached, origin):
        log.info("the cache spells the repository in other case", extra=fields(repo=origin.repo, path=str(cached)))
    offline = is_offline(context.env)
    if cached and (offline or COMMIT.fullmatch(origin.revision)):
        return cached
    if offline:
        raise ModelError(
            f"{wanted.setting}.hf: {wanted.description} is not on disk, and HF_HUB_OFFLINE is set",
            code="model_not_found",
            hint=f"unset HF_HUB_OFFLINE to download it; searched {' and '.join(map(str, origin.caches))}",
        )
    try:
        path, *_ = [_fetch_one(file, metadata, context) for file, metadata in _parts(wanted, origin, context)]
    except (ModelError, ConfigError) as error:
        if cached is None:
            raise
        log.warning("using the files on disk", extra=fields(reason=error.message, path=str(cached)))
        return cached
    return path


def missing_from_hub(wanted: Wanted, origin: OnHub, context: FetchContext) -> list[Missing]:
    """Return the parts that are not on disk, with the sizes that the hub says. Raises as a download does."""
    if is_offline(context.env):
        return []
    return [
        Missing(blob, metadata.size)
        for file, metadata in _parts(wanted, origin, context)
        if not ((blob := _blob(file, metadata)).exists() or _snapshot(file, metadata).exists())
    ]


def parts_on_hub(wanted: Wanted, origin: OnHub, context: FetchContext) -> Iterator[Remote]:
    """Yield where the bytes of each part are requested. Raises as a download does."""
    for file, metadata in _parts(wanted, origin, context):
        yield _remote(file, metadata, context)


def is_offline(env: Mapping[str, str]) -> bool:
    """Return whether the hub is not to be asked for anything."""
    return clean(env.get("HF_HUB_OFFLINE", "")).text.lower() in TRUE_WORDS


def _parts(wanted: Wanted, origin: OnHub, context: FetchContext) -> Iterator[tuple[HubFile, HubMetadata]]:
    """Yield each part with its metadata, which is requested once."""
    proxy = use_network(context.network)
    token = context.token(wanted) or context.network.hub_token()
    revision = origin.revision
    for name in split_names(origin.file):
        file = HubFile(wanted, origin, name, revision, token, proxy)
        if file not in context.hub_metadata:
            context.hub_metadata[file] = fetch_metadata(file)
        metadata = context.hub_metadata[file]
        revision = metadata.commit  # of the next part: a branch can move meanwhile
        yield file, metadata


def _blob(file: HubFile, metadata: HubMetadata) -> Path:
    return repository(file.origin.caches[0], file.origin) / "blobs" / metadata.etag


def _snapshot(file: HubFile, metadata: HubMetadata) -> Path:
    return snapshots(file.origin.caches[0], file.origin) / metadata.commit / file.name


def _fetch_one(file: HubFile, metadata: HubMetadata, context: FetchContext) -> Path:
    """Return the path of one file."""
    blob = _blob(file, metadata)
    prepare_directory(blob.parent)

    path = prepare(file.origin, metadata.commit, file.name)
    with context.lock(blob, file.name):
        if not (blob.exists() or path.exists()):  # `path` alone on a volume without links
            _fetch_blob(file, metadata, blob, context)
        publish(file.origin, metadata.commit, path, blob)
    return path


def _fetch_blob(file: HubFile, metadata: HubMetadata, blob: Path, context: FetchContext) -> None:
    fast = context.env.get("HF_XET_HIGH_PERFORMANCE", "").lower() in TRUE_WORDS
    if metadata.in_xet and (fast or (metadata.size or 0) > _MAX_HTTP_BYTES):
        _fetch_by_xet(file, metadata.size, context.reporter)
        return
    remote = _remote(file, metadata, context)
    download(remote, blob, context.reporter, context.connections, network=context.network)
    if remote.sha256:
        context.verified.add(blob, remote.sha256)


def _remote(file: HubFile, metadata: HubMetadata, context: FetchContext) -> Remote:
    url = replace(file, revision=metadata.commit).url
    return Remote(
        url=url,
        label=file.label,
        headers=context.network.credentials(url, file.token.value if file.token else None),
        token_source=file.token.source if file.token else "",
        size=metadata.size,
        sha256=metadata.sha256,
    )


def _fetch_by_xet(file: HubFile, size: int | None, reporter: Reporter) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - takes 0.2 s, and a model on disk does not need it

    reporter.phase(Phase.DOWNLOADING, f"{file.label} by Xet")
    reporter.progress(0, size)
    translated(
        file,
        lambda: hf_hub_download(
            file.origin.repo,
            file.name,
            revision=file.revision,
            cache_dir=file.origin.caches[0],
            token=file.bearer,
            tqdm_class=_relay_class(reporter, size),
        ),
    )


def _relay_class(reporter: Reporter, size: int | None) -> type[Any]:
    """Return a progress bar that draws nothing and reports to `reporter`."""
    from huggingface_hub.utils.tqdm import tqdm  # noqa: PLC0415 - as above

    class Relay(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - whatever tqdm takes
            super().__init__(*args, **(options | {"disable": True}))  # type: ignore[no-untyped-call]
            self._done = 0

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            reporter.progress(self._done, size)

        # Xet counts bytes received and bytes written; with these two methods both go to one bar.
        def update_transfer(self, n: float) -> None:
            """Ignore received bytes: they are counted when written."""

        def set_transfer_postfix_str(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as above
            """Show no speed."""

    return Relay
