"""Models in Hugging Face repositories, kept in the hub's own cache layout.

What is on disk starts without the hub: a pinned commit is not even asked about, and for a branch or tag the hub's
silence or refusal is a warning. huggingface_hub answers questions about files (and is imported only then); the bytes
come through `download`, because its own downloads use one connection and cannot be resumed by the next process. Files
in Xet storage come that way too: the hub redirects to a signed address that knows ranges. Its own Xet transfer is used
where asked for (HF_XET_HIGH_PERFORMANCE) and for files too large for plain HTTP.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.logs import fields
from llama_gguf.models.download.download import download, prepare_directory
from llama_gguf.models.download.lock import hold
from llama_gguf.models.download.spec import Remote
from llama_gguf.models.fetch_context import Means
from llama_gguf.models.hub.cache_layout import COMMIT, find_cached, publish, repository
from llama_gguf.models.model_files import Reporter
from llama_gguf.models.source import OnHub, Wanted, split_names
from llama_gguf.settings.gguf_file import has_suffix
from llama_gguf.settings.words import TRUE_WORDS, closest

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_METADATA_SECONDS = 10.0
_LARGEST_PLAIN_BYTES = 50_000_000_000  # beyond, the hub serves Xet only


@dataclass(frozen=True, slots=True)
class _Question:
    """A file to ask the hub about, and as whom."""

    wanted: Wanted
    origin: OnHub
    name: str
    revision: str
    token: str | None

    @property
    def label(self) -> str:
        return f"{self.origin.repo}/{self.name}@{self.revision}"


def fetch_hub(wanted: Wanted, origin: OnHub, means: Means) -> Path:
    """Have the file, all parts of a split one, on disk; return the path of the first."""
    cached = find_cached(origin)
    offline = means.env.get("HF_HUB_OFFLINE", "").lower() in TRUE_WORDS
    if cached and (offline or COMMIT.fullmatch(origin.revision)):
        return cached
    if offline:
        raise ModelError(
            f"{wanted.setting}.hf: {wanted.description} is not on disk, and HF_HUB_OFFLINE forbids asking the hub",
            code="model_not_found",
            hint=f"looked in {' and '.join(map(str, origin.caches))}",
        )
    token = _token(wanted, means.env)
    first, *others = split_names(origin.file)
    try:
        path, commit = _fetch_one(_Question(wanted, origin, first, origin.revision, token), means)
        for name in others:  # from the same commit: a branch may move while gigabytes are fetched
            _fetch_one(_Question(wanted, origin, name, commit, token), means)
    except ModelError as error:
        if cached is None:
            raise
        log.warning("using the files on disk", extra=fields(reason=error.message, path=str(cached)))
        return cached
    return path


def _token(wanted: Wanted, env: Mapping[str, str]) -> str | None:
    if wanted.token_env is None:
        return env.get("HF_TOKEN", "").strip() or None
    token = env.get(wanted.token_env, "").strip()
    if not token:
        raise ConfigError(
            f"{wanted.setting}.token_env: the variable {wanted.token_env} is not set",
            hint="set it to the token, or remove the setting",
        )
    return token


def _fetch_one(question: _Question, means: Means) -> tuple[Path, str]:
    """Return the path of one file and the commit it is from."""
    metadata = _ask_hub(question)
    commit, etag = metadata.commit_hash, metadata.etag
    if not commit or not COMMIT.fullmatch(commit) or not etag or not re.fullmatch(r"[\w.-]+", etag):
        raise ModelError(
            f"{question.label}: what answers at the hub's address is no hub (commit or ETag missing)",
            code="bad_answer",
            hint="check HF_ENDPOINT and the proxy",
        )
    blob = repository(question.origin.caches[0], question.origin) / "blobs" / etag
    prepare_directory(blob.parent)

    def waiting() -> None:
        means.reporter.phase("downloading", f"another worker is fetching {question.name}; waiting for it")

    with hold(blob.with_name(blob.name + ".lock"), on_wait=waiting):
        if not blob.exists():
            _fetch_blob(question, metadata, blob, means)
        return publish(question.origin, commit, question.name, blob), commit


def _fetch_blob(question: _Question, metadata: HfFileMetadata, blob: Path, means: Means) -> None:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - takes 0.2 s, and a model on disk does without

    fast = means.env.get("HF_XET_HIGH_PERFORMANCE", "").lower() in TRUE_WORDS
    if metadata.xet_file_data and (fast or (metadata.size or 0) > _LARGEST_PLAIN_BYTES):
        _fetch_by_xet(question, metadata.size, means.reporter)
        return
    etag = metadata.etag or ""
    remote = Remote(
        url=hf_hub_url(question.origin.repo, question.name, revision=metadata.commit_hash),
        label=question.label,
        headers={"Authorization": f"Bearer {question.token}"} if question.token else {},
        size=metadata.size,
        sha256=etag if _SHA256.fullmatch(etag) else None,  # the hub names large files by their SHA-256
    )
    download(remote, blob, means.reporter, means.connections)
    if remote.sha256:
        means.verified.remember(blob, remote.sha256)


def _fetch_by_xet(question: _Question, size: int | None, reporter: Reporter) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - as above

    reporter.phase("downloading", f"{question.label} by Xet")
    reporter.progress(0, size)
    _translated(
        question,
        lambda: hf_hub_download(
            question.origin.repo,
            question.name,
            revision=question.revision,
            cache_dir=question.origin.caches[0],
            token=question.token,
            tqdm_class=_relay_class(reporter, size),
        ),
    )


def _relay_class(reporter: Reporter, size: int | None) -> type[Any]:
    """Return a progress bar that draws nothing and tells `reporter`."""
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
            """Ignore bytes received: they are counted when written."""

        def set_transfer_postfix_str(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as above
            """Show no speed."""

    return Relay


def _ask_hub(question: _Question) -> HfFileMetadata:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - as above

    url = hf_hub_url(question.origin.repo, question.name, revision=question.revision)
    return _translated(question, lambda: get_hf_file_metadata(url, token=question.token, timeout=_METADATA_SECONDS))


def _translated(question: _Question, ask: Callable[[], T]) -> T:
    """Return what `ask` returns, with the hub's and its HTTP client's exceptions turned into ModelError."""
    import httpx2  # noqa: PLC0415 - as above
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    setting = f"{question.wanted.setting}.hf"
    access = f"put a token with access into {question.wanted.token_env or 'HF_TOKEN'}"
    try:
        return ask()
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{setting}: access to {question.origin.repo} has to be granted first",
            code="model_access_refused",
            hint=f"accept its terms at huggingface.co/{question.origin.repo}, and {access}",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{setting}.repo: the hub knows no {question.origin.repo}, or not for this token",
            code="model_not_found",
            hint=f"check the name; if it is private, {access}",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{setting}.revision: {question.origin.repo} has no {question.revision}", code="model_not_found"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(
            f"{setting}.file: {question.origin.repo}@{question.revision} has no {question.name}",
            code="model_not_found",
            hint=_other_files(question),
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ModelError(
                f"{setting}: the hub refused access ({status})", code="model_access_refused", hint=access
            ) from error
        raise ModelError(
            f"{setting}: the hub answered {status} for {question.label}", code="model_server_error", permanent=False
        ) from error
    except (httpx2.HTTPError, OSError) as error:  # OSError: also the hub's own errors about metadata and connections
        raise ModelError(
            f"{setting}: the hub cannot be reached: {error or type(error).__name__}",
            code="model_unreachable",
            permanent=False,
        ) from error


def _other_files(question: _Question) -> str:
    """Return what the repository has instead, as a hint; "" if that cannot be found out either."""
    import httpx2  # noqa: PLC0415 - as above
    from huggingface_hub import HfApi, errors  # noqa: PLC0415 - as above

    try:
        names = HfApi(token=question.token).list_repo_files(question.origin.repo, revision=question.revision)
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError):
        return ""
    there = sorted(name for name in names if has_suffix(name))
    near = closest(question.name, there)
    return f"did you mean {near}?" if near else f"it has {', '.join(there[:10]) or 'no GGUF files'}"
