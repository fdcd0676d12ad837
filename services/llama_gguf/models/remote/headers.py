"""The headers of a model that is not on disk, read from its server: what a memory plan needs of it, and no more."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llama_gguf.errors import ModelError
from llama_gguf.models.checksum import VerifiedFiles
from llama_gguf.models.download.http_client import HttpClient
from llama_gguf.models.fetch_context import FetchContext
from llama_gguf.models.hub.cache_layout import COMMIT
from llama_gguf.models.network import Network
from llama_gguf.models.remote.header_cache import HeaderCache
from llama_gguf.models.remote.header_prefix import PrefixLimits, RemoteFile, RemoteHeader, fetch_header
from llama_gguf.models.source import AtUrl, OnHub, Wanted, split_names
from llama_gguf.settings.gguf_file import SUFFIX
from llama_gguf.states import Phase

_PARALLEL = 8
_MAX_PARTS = 1000


def read_remote(
    wanted: Wanted, env: Mapping[str, str], cache: HeaderCache, limits: PrefixLimits | None = None
) -> tuple[RemoteHeader, ...]:
    """Return the headers of a file, or of all parts of a split one. Raises ModelError and ConfigError."""
    if isinstance(wanted.origin, OnHub):
        if known := _pinned(wanted.origin, cache):
            return known
        from llama_gguf.models.hub.huggingface import is_offline  # noqa: PLC0415 - not needed for URLs

        if is_offline(env):
            raise ModelError(
                f"{wanted.setting}.hf: {wanted.description} is not on disk, and HF_HUB_OFFLINE is set",
                code="model_not_found",
                hint="unset HF_HUB_OFFLINE to read its header",
            )
    with tempfile.TemporaryDirectory(prefix="llama-gguf-plan-") as scratch:
        context = FetchContext(env, Network(env), VerifiedFiles(Path(scratch)), _Silent())
        files = _files(wanted, context)
        headers = asyncio.run(_fetch(files, context.network, cache, limits or PrefixLimits(), Path(scratch)))
    _check_parts(wanted, headers)
    return headers


class _Silent:
    """Reports nothing: a plan has no phases."""

    def phase(self, phase: Phase, detail: str) -> None:
        """Ignore the phase."""

    def progress(self, done: int, total: int | None) -> None:
        """Ignore the progress."""


def _files(wanted: Wanted, context: FetchContext) -> list[RemoteFile]:
    match wanted.origin:
        case OnHub(file=name) | AtUrl(path=Path(name=name)) if (parts := len(split_names(name))) > _MAX_PARTS:
            raise ModelError(f"{wanted.setting}: {parts} parts; at most {_MAX_PARTS} are read", code="model_split")
        case OnHub() as origin:
            from llama_gguf.models.hub.huggingface import parts_on_hub  # noqa: PLC0415 - imports a large library

            remotes = parts_on_hub(wanted, origin, context)
            names = split_names(origin.file)
            return [RemoteFile(remote, _hub_source(origin, name)) for remote, name in zip(remotes, names, strict=True)]
        case AtUrl() as origin:
            from llama_gguf.models.http_url import parts_at_url  # noqa: PLC0415 - not needed for the hub

            return [RemoteFile(remote, remote.label) for _, remote in parts_at_url(wanted, origin, context)]
    raise ModelError(f"{wanted.setting}: {wanted.description} is not on disk", code="model_not_found")


def _hub_source(origin: OnHub, name: str) -> str:
    return f"{origin.repo}/{name}@{origin.revision}" if COMMIT.fullmatch(origin.revision) else f"{origin.repo}/{name}"


def _pinned(origin: OnHub, cache: HeaderCache) -> tuple[RemoteHeader, ...]:
    """Return the cached headers of a commit, which never changes; none if one is missing."""
    if not COMMIT.fullmatch(origin.revision):
        return ()
    found = [cache.find(_hub_source(origin, name)) for name in split_names(origin.file)]
    known = tuple(RemoteHeader(*item) for item in found if item)
    return known if len(known) == len(found) else ()


async def _fetch(
    files: Sequence[RemoteFile], network: Network, cache: HeaderCache, limits: PrefixLimits, scratch: Path
) -> tuple[RemoteHeader, ...]:
    places = asyncio.Semaphore(_PARALLEL)
    async with HttpClient(network, limits.connect_seconds, limits.stall_seconds) as client:

        async def fetch(number: int, file: RemoteFile) -> RemoteHeader:
            own = replace(limits, steps=limits.later_steps) if number else limits
            async with places:
                return await fetch_header(client, file, scratch / f"{number}{SUFFIX}", cache, own)

        first = await fetch(0, files[0])  # its failure is that of the others too, in most cases
        return (first, *await asyncio.gather(*(fetch(number, file) for number, file in enumerate(files) if number)))


def _check_parts(wanted: Wanted, headers: Sequence[RemoteHeader]) -> None:
    count = headers[0].header.number("split.count")
    if count > 1 and count != len(headers):
        raise ModelError(
            f"{wanted.setting}: {wanted.description} is part of {count}, but not named so",
            code="model_split",
            hint=f"name the first part, which ends in -00001-of-{count:05}{SUFFIX}",
        )
    if (number := headers[0].header.number("split.no")) > 0:
        raise ModelError(
            f"{wanted.setting}: {wanted.description} is part {number + 1} of {count}",
            code="model_split",
            hint=f"name the first part, which ends in -00001-of-{count:05}{SUFFIX}",
        )
