"""One file on the hub: its metadata, by huggingface_hub, which is imported only when it is needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from llama_gguf.errors import ModelError
from llama_gguf.models.hub import failures
from llama_gguf.models.hub.cache_layout import COMMIT
from llama_gguf.models.network import Network, check_hub
from llama_gguf.models.source import OnHub, Wanted
from llama_gguf.models.token import Token
from llama_gguf.settings.gguf_file import has_suffix
from llama_gguf.settings.proxy import Proxy
from llama_gguf.settings.words import closest

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

T = TypeVar("T")

SHA256 = re.compile(r"[0-9a-f]{64}")
METADATA_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub, and the token to request it with. `name` is that of one part of a split model."""

    wanted: Wanted
    origin: OnHub
    name: str
    revision: str
    token: Token | None = field(repr=False)
    proxy: Proxy | None

    @property
    def label(self) -> str:
        """The file as shown in messages."""
        return f"{self.origin.repo}/{self.name}@{self.revision}"

    @property
    def bearer(self) -> str | bool:
        """The token as huggingface_hub takes it: False, or it would look for one itself."""
        return self.token.value if self.token else False

    @property
    def url(self) -> str:
        """Where its bytes are requested."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - takes 0.2 s, and a model on disk does not need it

        return hf_hub_url(self.origin.repo, self.name, revision=self.revision)


@dataclass(frozen=True, slots=True)
class HubMetadata:
    """What the hub says about one file before its first byte."""

    commit: str
    etag: str
    size: int | None
    in_xet: bool

    @property
    def sha256(self) -> str | None:
        """The file's SHA-256: of a large file, its ETag is that."""
        return self.etag if SHA256.fullmatch(self.etag) else None


def use_network(network: Network) -> Proxy | None:
    """Have huggingface_hub send its requests as downloads are sent: same proxy, which is returned, same authorities."""
    import httpx2  # noqa: PLC0415 - as above
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
            proxy=through, verify=ssl_context, trust_env=False, follow_redirects=True, timeout=METADATA_SECONDS
        )

    set_client_factory(client)
    return proxy


def fetch_metadata(file: HubFile) -> HubMetadata:
    """Return what the hub says about `file`. Raises ModelError, also where the file's sha256 contradicts the hub's."""
    from huggingface_hub import get_hf_file_metadata  # noqa: PLC0415 - as above

    found = translated(file, lambda: get_hf_file_metadata(file.url, token=file.bearer, timeout=METADATA_SECONDS))
    metadata = _checked(file, found)
    expected = file.wanted.sha256 if file.name == file.origin.file else None  # the setting is that of the first part
    if expected and metadata.sha256 and expected != metadata.sha256:
        raise ModelError(
            f"{file.wanted.setting}.sha256: {file.label} has the SHA-256 {metadata.sha256} on the Hub, not {expected}",
            code="checksum_mismatch",
            hint="correct the setting, or pin hf.revision to the commit whose file it is of",
        )
    return metadata


def translated(file: HubFile, request: Callable[[], T]) -> T:
    """Return what `request` returns; the exceptions of huggingface_hub and its HTTP client become ModelError."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    place = failures.Place(
        file.wanted.setting, file.origin.repo, file.name, file.revision, file.wanted.token_env, file.token, file.proxy
    )
    try:
        return request()
    except errors.EntryNotFoundError as error:
        raise failures.no_such_file(place, _file_hint(file)) from error
    except errors.HfHubHTTPError as error:
        raise failures.refused(place, error) from error
    except failures.of_network(file.proxy) as error:
        raise failures.unreachable(place, error) from error


def _checked(file: HubFile, found: HfFileMetadata) -> HubMetadata:
    commit, etag = found.commit_hash, found.etag
    if not commit or not COMMIT.fullmatch(commit) or not etag or not re.fullmatch(r"[\w.-]+", etag):
        raise ModelError(
            f"{file.label}: the server is not a Hugging Face Hub (the response has no commit or ETag)",
            code="bad_answer",
            hint="check HF_ENDPOINT and the proxy",
        )
    return HubMetadata(commit, etag, found.size, found.xet_file_data is not None)


def _file_hint(file: HubFile) -> str:
    """Return the repository's files as a hint; "" if they cannot be listed."""
    import httpx2  # noqa: PLC0415 - as above
    from huggingface_hub import HfApi, errors  # noqa: PLC0415 - as above

    try:
        names = HfApi(token=file.bearer).list_repo_files(file.origin.repo, revision=file.revision)
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError):
        return ""
    there = sorted(name for name in names if has_suffix(name))
    near = closest(file.name, there)
    return f"did you mean {near}?" if near else f"it has {', '.join(there[:10]) or 'no GGUF files'}"
