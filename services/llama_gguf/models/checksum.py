"""SHA-256 of large files: compared once, then recorded for as long as the file does not change."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from llama_gguf.errors import ModelError
from llama_gguf.logs import fields
from llama_gguf.models.model_files import Reporter
from llama_gguf.states import Phase

log = logging.getLogger(__name__)

_CHUNK_BYTES = 4 * 1024 * 1024
_UPDATE_BYTES = 1024 * 1024  # small enough to stay in the CPU's cache between reading and hashing


def file_sha256(path: Path, reporter: Reporter) -> str:
    """Return the SHA-256 of `path` in lower-case hex; about a second per gigabyte."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        done = 0
        while count := file.readinto(buffer):
            digest.update(view[:count])
            done += count
            reporter.progress(done, total)
    return digest.hexdigest()


class PrefixDigest:
    """SHA-256 of a file that is still being written, over its contiguous prefix."""

    def __init__(self, read_into: Callable[[memoryview, int], int]) -> None:
        self._read_into = read_into
        self._digest = hashlib.sha256()
        self._view = memoryview(bytearray(_UPDATE_BYTES))
        self.position = 0

    def update_to(self, end: int) -> None:
        """Hash up to `end`, before which every byte is written. Blocks, but lets other threads run."""
        while self.position < end:
            count = self._read_into(self._view[: end - self.position], self.position)
            if count == 0:
                raise OSError(errno.EIO, "the file is shorter than what was written")
            self._digest.update(self._view[:count])
            self.position += count

    def hexdigest(self) -> str:
        """Return the digest of the bytes before `position`, in lower-case hex."""
        return self._digest.hexdigest()


class VerifiedFiles:
    """Records which files have which digest: one small JSON file for each in `directory`.

    A file counts as unchanged while path, size, modification time and inode are. If the directory is not writable, the
    digest is computed at each start.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def contains(self, path: Path, sha256: str) -> bool:
        """Return whether `path` was verified to have `sha256` and has not changed since."""
        try:
            recorded = json.loads(self._record(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(recorded == _identity(path, sha256))

    def add(self, path: Path, sha256: str) -> None:
        """Record that `path` has `sha256`."""
        record = self._record(path)
        temporary = record.with_name(f"{record.name}.{os.getpid()}.new")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(_identity(path, sha256)), encoding="utf-8")
            temporary.replace(record)
        except OSError as error:
            log.warning(
                "cannot record the verified checksum; it is computed again at the next start",
                extra=fields(directory=str(self._directory), reason=error.strerror),
            )

    def _record(self, path: Path) -> Path:
        return self._directory / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json")


def checked_digest(path: Path, sha256: str, verified: VerifiedFiles, reporter: Reporter) -> str:
    """Return the SHA-256 of `path`: `sha256` if that is recorded, else computed, and recorded if it is right."""
    if verified.contains(path, sha256):
        return sha256
    reporter.phase(Phase.VERIFYING, f"checking the SHA-256 of {path.name}")
    found = file_sha256(path, reporter)
    if found == sha256:
        verified.add(path, sha256)
    return found


def verify(path: Path, sha256: str, setting: str, verified: VerifiedFiles, reporter: Reporter) -> None:
    """Raise a permanent ModelError unless `path` has the digest `sha256`."""
    found = checked_digest(path, sha256, verified, reporter)
    if found != sha256:
        raise ModelError(
            f"{setting}.sha256: {path} has the SHA-256 {found}, not {sha256}",
            code="checksum_mismatch",
            hint="the file is corrupt or another version: remove it, or correct the setting",
        )


def _identity(path: Path, sha256: str) -> dict[str, object]:
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
        "sha256": sha256,
    }
