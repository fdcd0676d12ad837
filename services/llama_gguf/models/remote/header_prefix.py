"""The header of a GGUF file on a server: as many of its first bytes as the header takes, in bounded time and space."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aiohttp import ClientResponse

from llama_gguf.errors import ModelError
from llama_gguf.models.download.errors import (
    check_published,
    interrupted,
    invalid_response,
    invalid_url,
    not_gguf,
    refused,
)
from llama_gguf.models.download.http_client import (
    DownloadInterruptedError,
    HttpClient,
    InvalidUrlError,
    body,
    error_message,
)
from llama_gguf.models.download.http_source import HttpSource
from llama_gguf.models.download.range_response import (
    ErrorResponse,
    FullContent,
    InvalidRange,
    PartialContent,
    RangeNotSatisfiable,
    read_response,
)
from llama_gguf.models.download.spec import Remote
from llama_gguf.models.gguf.header import Header, read_header
from llama_gguf.models.remote.header_cache import HeaderCache
from llama_gguf.settings.gguf_file import MAGIC

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PrefixLimits:
    """How much of a file is read, in steps, and how long that can take; tests use less."""

    steps: tuple[int, ...] = (_MIB, 8 * _MIB, 24 * _MIB, 64 * _MIB)  # a vocabulary of 260,000 tokens takes 16 MiB
    later_steps: tuple[int, ...] = (_MIB // 4, _MIB, 8 * _MIB)  # of a split file's other parts, without a vocabulary
    connect_seconds: float = 10.0
    stall_seconds: float = 15.0
    total_seconds: float = 90.0
    attempts: int = 3
    retry_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class RemoteHeader:
    """A header, and the size of the file that it begins; None where the server does not say."""

    header: Header
    file_bytes: int | None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to read the header of. `source` identifies it in the cache: no token, no signature."""

    remote: Remote
    source: str


async def fetch_header(
    client: HttpClient, file: RemoteFile, scratch: Path, cache: HeaderCache, limits: PrefixLimits
) -> RemoteHeader:
    """Return the header of a file, whose first bytes are written to `scratch`. Raises ModelError."""
    label = file.remote.label
    try:
        async with asyncio.timeout(limits.total_seconds):
            for attempt in range(1, limits.attempts + 1):
                try:
                    return await _Prefix(HttpSource(client, file.remote.url, file.remote.headers), file, cache).read(
                        scratch, limits.steps
                    )
                except DownloadInterruptedError as error:
                    if error.permanent or attempt >= min(limits.attempts, error.max_attempts or limits.attempts):
                        raise interrupted(file.remote, error) from error
                except ModelError as error:
                    if error.permanent or attempt == limits.attempts:
                        raise
                await asyncio.sleep(limits.retry_seconds)
    except InvalidUrlError as error:
        raise invalid_url(label) from error
    except TimeoutError as error:
        what = f"the server did not send the header within {limits.total_seconds:.0f} s"
        raise interrupted(file.remote, DownloadInterruptedError(what)) from error
    raise AssertionError("unreachable")


class _Prefix:
    """One attempt at reading a header."""

    def __init__(self, source: HttpSource, file: RemoteFile, cache: HeaderCache) -> None:
        self._source = source
        self._file = file
        self._label = file.remote.label
        self._cache = cache
        self._version = ""
        self._size: int | None = None
        self._content_type = ""

    async def read(self, scratch: Path, steps: tuple[int, ...]) -> RemoteHeader:
        """Request one range after the other until the header is complete."""
        with scratch.open("w+b") as out:
            for end in steps:
                start = out.tell()
                async with self._source.get({"Range": f"bytes={start}-{end - 1}"}) as response:
                    check_published(self._file.remote, self._source.published_sha256)
                    found = await self._receive(response, out, start, end, steps)
                if found:
                    return found
        raise ModelError(
            f"{self._label}: its header is larger than {steps[-1] / _MIB:.0f} MiB",
            code="model_unsupported",
            hint="download it, and plan with the file on disk",
        )

    async def _receive(
        self, response: ClientResponse, out: IO[bytes], start: int, end: int, steps: tuple[int, ...]
    ) -> RemoteHeader | None:
        self._content_type = response.headers.get("Content-Type", "")
        match read_response(response.status, response.headers):
            case PartialContent(begin, until, size, version) if begin == start and until <= end:
                if found := self._cached(start, version, size):
                    return found
                await _copy(body(response), out, until)
                if out.tell() < until:
                    raise DownloadInterruptedError("the response ended before its range")
                out.truncate(until)
                out.seek(until)
                return self._complete(out, ended=until == size)
            case PartialContent() | InvalidRange():
                raise invalid_response(self._label, "the server sends other bytes than requested")
            case FullContent(size, version):  # it has no ranges: read on, and hang up when there is enough
                out.seek(0)
                out.truncate()
                if found := self._cached(0, version, size):
                    return found
                chunks = body(response)
                for step in steps:
                    ended = await _copy(chunks, out, step)
                    if (found := self._complete(out, ended=ended)) or ended:
                        return found
                return None
            case RangeNotSatisfiable():
                raise invalid_response(self._label, f"the server has only {start} bytes of the file")
            case ErrorResponse(status, retry_after):
                raise refused(self._file.remote, status, await error_message(response), retry_after)

    def _cached(self, start: int, version: str, size: int | None) -> RemoteHeader | None:
        """Compare a response's headers with those before; return what the cache has of this version."""
        if start == 0:
            self._version, self._size = version, self._file.remote.size if size is None else size
            known = self._cache.find(self._file.source, version) if version else None
            return RemoteHeader(*known) if known and known[1] == self._size else None
        if version != self._version or size != self._size:
            raise DownloadInterruptedError("the file has changed while its header was read")
        return None

    def _complete(self, out: IO[bytes], *, ended: bool) -> RemoteHeader | None:
        """Return the header if all of it is there; None if more of the file is needed."""
        out.flush()
        path = Path(out.name)
        try:
            header = read_header(path)
        except ModelError as error:
            if os.pread(out.fileno(), len(MAGIC), 0) != MAGIC:
                raise not_gguf(self._label, self._content_type) from error
            if error.code == "model_incomplete" and not ended:
                return None
            raise ModelError(
                error.message.replace(str(path), self._label), code=error.code, hint=error.hint, permanent=True
            ) from error
        if self._size is not None and header.end_of_data > self._size:
            raise ModelError(
                f"{self._label}: the file on the server is incomplete: {self._size} of {header.end_of_data} bytes",
                code="model_incomplete",
                hint="its upload was not finished; use another file",
            )
        if self._size is not None:
            self._cache.store(self._file.source, self._version, self._size, header)
        return RemoteHeader(header, self._size)


async def _copy(chunks: AsyncIterator[bytes], out: IO[bytes], end: int) -> bool:
    """Write chunks until `out` has at least `end` bytes; return whether there are no more."""
    async for chunk in chunks:
        out.write(chunk)
        if out.tell() >= end:
            return False
    return True
