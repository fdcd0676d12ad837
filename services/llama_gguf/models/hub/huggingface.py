"""Models in Hugging Face repositories, stored in the Hub's own cache layout.

A model on disk starts without the Hub: for a pinned commit it is not contacted, and for a branch or tag its failure is
a warning. huggingface_hub (imported only when needed) fetches the files' metadata; their bytes are downloaded by
`download`, because huggingface_hub uses one connection and a new process cannot resume its downloads. Files in Xet
storage are downloaded in the same way: the Hub redirects to a signed URL that supports ranges. Xet's own transfer is
used on request (HF_XET_HIGH_PERFORMANCE) and for files too large for plain HTTP.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.logs import fields
from llama_gguf.models.download.download import download, prepare_directory
from llama_gguf.models.download.spec import Remote
from llama_gguf.models.fetch_context import FetchContext
from llama_gguf.models.hub.cache_layout import COMMIT, find_cached, prepare, publish, repository, spelled_differently
from llama_gguf.models.model_files import Reporter
from llama_gguf.models.network import OWN_AUTHORITY_HINT, Network, check_hub
from llama_gguf.models.source import OnHub, Wanted, split_names
from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.gguf_file import has_suffix
from llama_gguf.settings.proxy import Proxy
from llama_gguf.settings.redaction import shown_variable
from llama_gguf.settings.words import TRUE_WORDS, closest
from llama_gguf.states import Phase

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_METADATA_SECONDS = 10.0
_MAX_HTTP_BYTES = 50_000_000_000  # larger files are served only by Xet


@dataclass(frozen=True, slots=True)
class _HubFile:
    """A file on the Hub, and the token to request it with."""

    wanted: Wanted
    origin: OnHub
    name: str
    revision: str
    token: str | None = field(repr=False)
    proxy: Proxy | None

    @property
    def label(self) -> str:
        return f"{self.origin.repo}/{self.name}@{self.revision}"


def fetch_hub(wanted: Wanted, origin: OnHub, context: FetchContext) -> Path:
    """Download the file, or all parts of a split one; return the path of the first."""
    cached = find_cached(origin)
    if cached and spelled_differently(cached, origin):
        log.info("the cache spells the repository in other case", extra=fields(repo=origin.repo, path=str(cached)))
    offline = clean(context.env.get("HF_HUB_OFFLINE", "")).text.lower() in TRUE_WORDS
    if cached and (offline or COMMIT.fullmatch(origin.revision)):
        return cached
    if offline:
        raise ModelError(
            f"{wanted.setting}.hf: {wanted.description} is not on disk, and HF_HUB_OFFLINE is set",
            code="model_not_found",
            hint=f"unset HF_HUB_OFFLINE to download it; searched {' and '.join(map(str, origin.caches))}",
        )
    first, *others = split_names(origin.file)
    try:
        proxy = _use_network(context.network)
        token = context.token(wanted) or context.network.hub_token()
        path, commit = _fetch_one(_HubFile(wanted, origin, first, origin.revision, token, proxy), context)
        for name in others:  # from the same commit: a branch can move meanwhile
            _fetch_one(_HubFile(wanted, origin, name, commit, token, proxy), context)
    except (ModelError, ConfigError) as error:
        if cached is None:
            raise
        log.warning("using the files on disk", extra=fields(reason=error.message, path=str(cached)))
        return cached
    return path


def _use_network(network: Network) -> Proxy | None:
    """Have huggingface_hub send its requests as downloads are sent: same proxy, which is returned, same authorities."""
    import httpx2  # noqa: PLC0415 - takes 0.2 s, and a model on disk does not need it
    from huggingface_hub import constants, set_client_factory  # noqa: PLC0415 - as above

    check_hub(constants.ENDPOINT)
    proxy, ssl_context = network.proxy(constants.ENDPOINT), network.ssl_context

    def client() -> httpx2.Client:
        through = None
        if proxy:
            login = (proxy.username, proxy.password) if proxy.username else None
            encrypted = ssl_context if proxy.scheme == "https" else None
            through = httpx2.Proxy(proxy.address, auth=login, ssl_context=encrypted)
        return httpx2.Client(
            proxy=through, verify=ssl_context, trust_env=False, follow_redirects=True, timeout=_METADATA_SECONDS
        )

    set_client_factory(client)
    return proxy


def _fetch_one(file: _HubFile, context: FetchContext) -> tuple[Path, str]:
    """Return the path of one file and its commit."""
    metadata = _fetch_metadata(file)
    commit, etag = metadata.commit_hash, metadata.etag
    if not commit or not COMMIT.fullmatch(commit) or not etag or not re.fullmatch(r"[\w.-]+", etag):
        raise ModelError(
            f"{file.label}: the server is not a Hugging Face Hub (the response has no commit or ETag)",
            code="bad_answer",
            hint="check HF_ENDPOINT and the proxy",
        )
    blob = repository(file.origin.caches[0], file.origin) / "blobs" / etag
    prepare_directory(blob.parent)

    path = prepare(file.origin, commit, file.name)
    with context.lock(blob, file.name):
        if not (blob.exists() or path.exists()):  # `path` alone on a volume without links
            _fetch_blob(file, metadata, blob, context)
        publish(file.origin, commit, path, blob)
    return path, commit


def _fetch_blob(file: _HubFile, metadata: HfFileMetadata, blob: Path, context: FetchContext) -> None:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - as above

    fast = context.env.get("HF_XET_HIGH_PERFORMANCE", "").lower() in TRUE_WORDS
    if metadata.xet_file_data and (fast or (metadata.size or 0) > _MAX_HTTP_BYTES):
        _fetch_by_xet(file, metadata.size, context.reporter)
        return
    etag = metadata.etag or ""
    url = hf_hub_url(file.origin.repo, file.name, revision=metadata.commit_hash)
    remote = Remote(
        url=url,
        label=file.label,
        headers=context.network.credentials(url, file.token),
        size=metadata.size,
        sha256=etag if _SHA256.fullmatch(etag) else None,  # the ETag of a large file is its SHA-256
    )
    download(remote, blob, context.reporter, context.connections, network=context.network)
    if remote.sha256:
        context.verified.add(blob, remote.sha256)


def _fetch_by_xet(file: _HubFile, size: int | None, reporter: Reporter) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - as above

    reporter.phase(Phase.DOWNLOADING, f"{file.label} by Xet")
    reporter.progress(0, size)
    _translated(
        file,
        lambda: hf_hub_download(
            file.origin.repo,
            file.name,
            revision=file.revision,
            cache_dir=file.origin.caches[0],
            token=file.token or False,
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


def _fetch_metadata(file: _HubFile) -> HfFileMetadata:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - as above

    url = hf_hub_url(file.origin.repo, file.name, revision=file.revision)
    return _translated(file, lambda: get_hf_file_metadata(url, token=file.token or False, timeout=_METADATA_SECONDS))


def _translated(file: _HubFile, request: Callable[[], T]) -> T:
    """Return what `request` returns; the exceptions of huggingface_hub and its HTTP client become ModelError."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    setting = f"{file.wanted.setting}.hf"
    access = f"set a token with access in {shown_variable(file.wanted.token_env or 'HF_TOKEN')}"
    try:
        return request()
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{setting}: {file.origin.repo} is gated, and access is not granted",
            code="model_access_refused",
            hint=f"accept its terms at huggingface.co/{file.origin.repo}, and {access}",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{setting}.repo: {file.origin.repo} does not exist on the Hub, or this token has no access",
            code="model_not_found",
            hint=f"check the name; if it is private, {access}",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{setting}.revision: {file.origin.repo} has no {file.revision}", code="model_not_found"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(
            f"{setting}.file: {file.origin.repo}@{file.revision} has no {file.name}",
            code="model_not_found",
            hint=_file_hint(file),
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ModelError(
                f"{setting}: the Hub denied access ({status})", code="model_access_refused", hint=access
            ) from error
        raise ModelError(
            f"{setting}: the Hub responded with {status} for {file.label}", code="model_server_error", permanent=False
        ) from error
    except _failures_of_network(file.proxy) as error:
        raise _unreachable(file, error) from error


def _failures_of_network(proxy: Proxy | None) -> tuple[type[Exception], ...]:
    """Return what httpx2 raises, and lets through of the library by which it speaks to SOCKS proxies."""
    import httpx2  # noqa: PLC0415 - as above

    failures = (httpx2.HTTPError, OSError)  # OSError: also huggingface_hub's own errors
    if proxy is None or proxy.scheme != "socks5":
        return failures
    import socksio  # noqa: PLC0415 - only where there is such a proxy

    return (*failures, socksio.SOCKSError)


def _unreachable(file: _HubFile, error: Exception) -> ModelError:
    import httpx2  # noqa: PLC0415 - as above

    through = f", through the proxy {file.proxy.description}" if file.proxy else ""
    text = str(error) or type(error).__name__
    refused = isinstance(error, httpx2.ProxyError) and text[:3] in ("403", "407")
    hint = f"put the right user and password into {file.proxy.variable}" if file.proxy and text[:3] == "407" else ""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = OWN_AUTHORITY_HINT
    return ModelError(
        f"{file.wanted.setting}.hf: the Hub cannot be reached{through}: {text}",
        code="model_unreachable",
        permanent=refused,
        hint=hint,
    )


def _file_hint(file: _HubFile) -> str:
    """Return the repository's files as a hint; "" if they cannot be listed."""
    import httpx2  # noqa: PLC0415 - as above
    from huggingface_hub import HfApi, errors  # noqa: PLC0415 - as above

    try:
        names = HfApi(token=file.token or False).list_repo_files(file.origin.repo, revision=file.revision)
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError):
        return ""
    there = sorted(name for name in names if has_suffix(name))
    near = closest(file.name, there)
    return f"did you mean {near}?" if near else f"it has {', '.join(there[:10]) or 'no GGUF files'}"
