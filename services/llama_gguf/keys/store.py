"""The keys file on disk: reading it with its warnings, and changing it under a lock.

Owns the file and the two beside it, `<keys file>.lock` and `<keys file>.pepper` (see `secret.derive_secret`).
`file_format` parses the text; `atomic_file` replaces files.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_gguf import atomic_file
from llama_gguf.errors import KeysError, Problem
from llama_gguf.keys import file_format

from .record import KeyFile

MAX_BYTES = 64 * 1024 * 1024
PEPPER_BYTES = 32


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """A keys file as read: its keys, a fingerprint of its content, and warnings."""

    keys: KeyFile
    fingerprint: bytes
    blank: bool
    warnings: tuple[Problem, ...] = ()


def load(path: Path) -> LoadedKeys:
    """Read the keys file, without a lock: it is only ever replaced as a whole.

    Raises KeysError: `keys-missing`, `keys-io`, `keys-writable` (every user can change it) or `keys-syntax`.
    """
    content, status = _read(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise KeysError(f"{path}:{line}: not UTF-8 text", code="keys-syntax") from None
    keys = file_format.parse(text, source=str(path), read_at=dt.datetime.fromtimestamp(int(status.st_mtime), dt.UTC))
    warnings = tuple(_warnings(path, keys, stat.S_IMODE(status.st_mode)))
    return LoadedKeys(keys, hashlib.sha256(content).digest(), not text.strip(), warnings)


def load_if_exists(path: Path) -> LoadedKeys:
    """Do what `load` does; a missing file has no keys."""
    try:
        return load(path)
    except KeysError as error:
        if error.code == "keys-missing":
            return LoadedKeys(KeyFile(), b"", blank=True)
        raise


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a fifo must not block
    except FileNotFoundError:
        raise KeysError(
            f"{path}: there is no keys file", code="keys-missing", hint="`llama-gguf keys generate` creates it"
        ) from None
    except OSError as error:
        raise atomic_file.io_error(error, "read", path) from error
    try:
        status = os.fstat(descriptor)
        _check_mode(path, status.st_mode)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise atomic_file.io_error(error, "read", path) from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise KeysError(f"{path}: larger than the limit of {MAX_BYTES // 1024**2} MiB for keys files", code="keys-io")
    return content, status


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise KeysError(f"{path}: not a regular file", code="keys-io")
    if mode & stat.S_IWOTH:
        raise KeysError(
            f"{path}: every user of this machine can change it (mode {stat.S_IMODE(mode):o})",
            code="keys-writable",
            hint=f"chmod 600 {path}; if the file system has no modes, move the file to one that has",
        )


def _warnings(path: Path, keys: KeyFile, mode: int) -> Iterator[Problem]:
    if keys.plaintext:
        yield Problem(
            code="keys-plaintext",
            message=f"{path} contains the keys in plaintext",
            source=str(path),
            hint="`llama-gguf keys import` replaces them by digests",
            severity="warning",
        )
    if mode & 0o077:
        yield Problem(
            code="keys-readable",
            message=f"{path} is accessible to other users (mode {mode:o})",
            source=str(path),
            hint=f"chmod 600 {path}; if the file system has no modes, move the file to one that has",
            severity="warning",
        )


class Session:
    """The keys file while its lock is held: its keys, and the right to replace it."""

    def __init__(self, path: Path, keys: KeyFile, failpoint: atomic_file.Failpoint) -> None:
        self.keys = keys
        self._path = path
        self._failpoint = failpoint

    def write(self, keys: KeyFile) -> None:
        """Replace the file. Returns when the new content is on disk."""
        text = file_format.render(keys)
        written = file_format.parse(
            text, source=f"{self._path} (as it would be written)", read_at=dt.datetime.now(dt.UTC)
        )
        if written.records != keys.records:
            raise KeysError("the keys would not be read back as they are written", code="keys-syntax")
        atomic_file.replace(self._path, text.encode("utf-8"), failpoint=self._failpoint)
        self.keys = written

    def pepper(self) -> bytes:
        """Return the random secret of this keys file; created (0600) when it is first needed."""
        path = self._path.with_name(self._path.name + ".pepper")
        try:
            pepper = path.read_bytes()
            mode = path.stat().st_mode
        except FileNotFoundError:
            pepper = secrets.token_bytes(PEPPER_BYTES)
            atomic_file.replace(path, pepper, failpoint=self._failpoint)
            return pepper
        except OSError as error:
            raise atomic_file.io_error(error, "read", path) from error
        if len(pepper) != PEPPER_BYTES or mode & 0o007:
            raise KeysError(
                f"{path} must have {PEPPER_BYTES} bytes and be closed to other users (mode {stat.S_IMODE(mode):o})",
                code="keys-pepper",
                hint="remove it and repeat the rotation with a new request id",
            )
        return pepper


class KeyStore:
    """One keys file. A symbolic link is followed: its target is replaced, not the link."""

    def __init__(
        self,
        path: Path,
        *,
        lock_timeout_seconds: float = 10.0,
        failpoint: atomic_file.Failpoint = atomic_file.no_failpoint,
    ) -> None:
        self.path = path
        self._timeout = lock_timeout_seconds
        self._failpoint = failpoint

    @contextmanager
    def locked(self, *, convert: bool = False) -> Iterator[Session]:
        """Hold the lock and yield the current keys; a missing file has none.

        A file in the old plaintext format can only be changed with `convert`: writing replaces the keys by digests.
        """
        while True:
            real = atomic_file.resolve(self.path)
            with atomic_file.exclusive(real, timeout_seconds=self._timeout, failpoint=self._failpoint):
                if atomic_file.resolve(self.path) != real:
                    continue  # the link was changed meanwhile
                keys = load_if_exists(real).keys
                if keys.plaintext and not convert:
                    raise KeysError(
                        f"{self.path} is in the old format, with keys in plaintext; it is read-only",
                        code="keys-plaintext",
                        hint="run `llama-gguf keys import` first: it replaces the keys by digests",
                    )
                self._failpoint("read")
                yield Session(real, keys, self._failpoint)
                return
