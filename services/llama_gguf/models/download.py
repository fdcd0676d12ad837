"""Fetches one big file over HTTP: resumed after any end, complete or not there at all.

Bytes go to `NAME.part`, beside it `NAME.part.json` says which version of the remote file they belong to; a rename at
the end is the only way to NAME. Knows nothing of hubs or settings. Messages never hold a query string or a token.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from llama_gguf.errors import ModelError
from llama_gguf.logs import fields
from llama_gguf.models.files import Reporter
from llama_gguf.models.gguf_header import MAGIC

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1024 * 1024
_SPARE_BYTES = 64 * 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?P<total>\d+|\*)")
_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Remote:
    """A file at an address, and what is known of it beforehand."""

    url: str
    label: str  # the address as messages may show it
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class _Span:
    """What a response holds of a file: everything from `start`; `total` is the whole file's length."""

    start: int
    total: int | None


def http_client() -> httpx2.Client:
    """Return a client for downloads: redirects followed (credentials stay behind), the system's certificates."""
    return httpx2.Client(
        follow_redirects=True,
        timeout=httpx2.Timeout(60.0, connect=15.0),
        headers={"User-Agent": "llama-gguf-inference", "Accept-Encoding": "identity"},
    )


def prepare_directory(directory: Path) -> None:
    """Make `directory`. Raises ModelError when that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _disk_error(directory, error) from error


def download(
    remote: Remote,
    destination: Path,
    reporter: Reporter,
    client: httpx2.Client,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Fetch `remote` to `destination` and return its SHA-256.

    A connection that breaks is taken up again for as long as each try brings new bytes. Raises ModelError; what was
    fetched stays for the next call, unless it turned out wrong.
    """
    part = _Part(destination)
    reporter.phase("downloading", remote.label)
    while True:
        before = part.size()
        try:
            return _fetch(remote, part, reporter, client)
        except httpx2.RequestError as error:
            if part.size() <= before:
                raise _unreachable(remote, error) from error
            log.warning("download interrupted, resuming", extra=fields(source=remote.label, bytes_done=part.size()))
            sleep(1.0)
        except httpx2.InvalidURL as error:
            raise ModelError(f"{remote.label}: no usable address: {error}", code="bad_url") from error
        except OSError as error:
            raise _disk_error(destination, error) from error


class _Part:
    """The unfinished file and its notes."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(destination.name + ".part")
        self._notes = destination.with_name(destination.name + ".part.json")

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def validator(self) -> str:
        """Return the version (ETag or date) of the remote file that the part belongs to, "" if unknown."""
        try:
            return str(json.loads(self._notes.read_text(encoding="utf-8"))["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def note(self, validator: str) -> None:
        self._notes.write_text(json.dumps({"validator": validator}), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def finish(self) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.destination)
        self._notes.unlink(missing_ok=True)


def _fetch(remote: Remote, part: _Part, reporter: Reporter, client: httpx2.Client) -> str:
    have, headers = part.size(), dict(remote.headers)
    validator = part.validator()
    if have and (validator or remote.sha256):  # with neither, nothing could tell a mixture of two versions
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with client.stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416 and _range_total(response) == have:
            digest = _start_digest(part.path)
        else:
            span = _judge(remote, response, part, have)
            _check_space(part.path.parent, (span.total or 0) - span.start)
            part.note(_validator(response))
            digest = _receive(remote, response, part, span, reporter)
    return _conclude(remote, part, digest)


def _judge(remote: Remote, response: httpx2.Response, part: _Part, have: int) -> _Span:
    """Return what of the file the body is. Raises ModelError for an answer without the file."""
    status = response.status_code
    if status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match and match["start"] and int(match["start"]) == have:
            total = None if match["total"] == "*" else int(match["total"])
            return _Span(have, _agreed(remote, part, total))
        part.discard()
        raise ModelError(f"{remote.label}: answered another range than asked for", code="bad_answer", permanent=False)
    if status == 200:
        length = response.headers.get("Content-Length", "")
        return _Span(0, _agreed(remote, part, int(length) if length.isdigit() else None))
    if status == 416:
        part.discard()
        raise ModelError(f"{remote.label}: the file there has changed", code="bad_answer", permanent=False)
    raise _refused(remote, status)


def _agreed(remote: Remote, part: _Part, total: int | None) -> int | None:
    if remote.size is not None and total is not None and total != remote.size:
        part.discard()
        raise ModelError(
            f"{remote.label}: {total} bytes were offered where {remote.size} were announced",
            code="bad_answer",
            permanent=False,
        )
    return total if total is not None else remote.size


def _receive(remote: Remote, response: httpx2.Response, part: _Part, span: _Span, reporter: Reporter) -> hashlib._Hash:
    start, total = span.start, span.total
    digest = _start_digest(part.path, start)
    done = start
    reporter.progress(done, total)
    with part.path.open("r+b" if start else "wb") as file:
        file.seek(start)
        for chunk in response.iter_raw():  # as they come: what is collected first would be lost when it breaks
            if done < len(MAGIC):
                _check_magic(remote, response, done, chunk)
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            reporter.progress(done, total)
    if total is not None and done != total:
        raise httpx2.ReadError(f"{done} of {total} bytes came")
    return digest


def _check_magic(remote: Remote, response: httpx2.Response, done: int, chunk: bytes) -> None:
    if not chunk.startswith(MAGIC[done : done + len(chunk)]):
        kind = response.headers.get("Content-Type", "something else")
        raise ModelError(
            f"{remote.label}: answers with {kind}, not with a GGUF file",
            code="model_not_gguf",
            hint="is it the address of the file itself, and does it need a token (token_env)?",
        )


def _start_digest(path: Path, count: int | None = None) -> hashlib._Hash:
    """Return a digest of the first `count` bytes of `path` (None: all), which an earlier try has fetched."""
    digest = hashlib.sha256()
    if count == 0:
        return digest
    with path.open("rb") as file:
        left = count if count is not None else os.fstat(file.fileno()).st_size
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
    return digest


def _conclude(remote: Remote, part: _Part, digest: hashlib._Hash) -> str:
    found = digest.hexdigest()
    if remote.sha256 and found != remote.sha256:
        part.discard()
        raise ModelError(
            f"{remote.label}: has the SHA-256 {found}, not {remote.sha256}",
            code="checksum_mismatch",
            hint="correct the expected SHA-256, or find out who changed the file",
        )
    part.finish()
    return found


def _validator(response: httpx2.Response) -> str:
    etag: str = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
        return etag
    return str(response.headers.get("Last-Modified", ""))


def _range_total(response: httpx2.Response) -> int | None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(match["total"]) if match and match["total"] != "*" else None


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > 0 and needed + _SPARE_BYTES > free:
        raise ModelError(
            f"{directory}: {needed / 1e9:.1f} GB are still to come, only {free / 1e9:.1f} GB are free",
            code="disk_full",
            hint="free some space, or set paths.models_dir to a larger volume",
        )


def _refused(remote: Remote, status: int) -> ModelError:
    if status in (401, 403):
        return ModelError(
            f"{remote.label}: access refused ({status})",
            code="model_access_refused",
            hint="name the variable with a valid token in token_env, and accept the model's licence if it has one",
        )
    if status in (404, 410):
        return ModelError(f"{remote.label}: not there ({status})", code="model_not_found")
    return ModelError(
        f"{remote.label}: the server answered {status}",
        code="model_server_error",
        permanent=status not in _TRANSIENT_STATUSES,
    )


def _unreachable(remote: Remote, error: httpx2.RequestError) -> ModelError:
    permanent = isinstance(error, (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects))
    return ModelError(
        f"{remote.label}: {error or type(error).__name__}",
        code="model_unreachable",
        permanent=permanent,
    )


def _disk_error(destination: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{destination}: cannot be written: {error.strerror or error}",
        code="disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "models_dir_not_writable",
        hint="check the space and the permissions of paths.models_dir",
        permanent=error.errno in _DISK_ERRORS,
    )
