"""The keys file on disk: reading it with its warnings, and changing it under a lock.

Owns the file and its two neighbours, `<keys file>.lock` and `<keys file>.pepper` (see `secret.derive_secret`). What
the text means is `file_format`'s business; how a file is replaced, `atomic_file`'s.
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
class Loaded:
    """A keys file as read: its keys, what tells its content from another, and what is doubtful about it."""

    keys: KeyFile
    fingerprint: bytes
    blank: bool
    warnings: tuple[Problem, ...] = ()


def load(path: Path) -> Loaded:
    """Read the keys file, without a lock: it is only ever replaced as a whole.

    Raises KeysError: `keys-missing`, `keys-io`, `keys-writable` (anybody may change it) or `keys-syntax`.
    """
    content, status = _read(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise KeysError(f"{path}:{line}: not UTF-8 text", code="keys-syntax") from None
    keys = file_format.parse(text, source=str(path), read_at=dt.datetime.fromtimestamp(int(status.st_mtime), dt.UTC))
    warnings = tuple(_warnings(path, keys, stat.S_IMODE(status.st_mode)))
    return Loaded(keys, hashlib.sha256(content).digest(), not text.strip(), warnings)


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo must not hang us
    except FileNotFoundError:
        raise KeysError(
            f"{path}: there is no keys file", code="keys-missing", hint="`llama-gguf keys generate` makes one"
        ) from None
    except OSError as error:
        raise atomic_file.io_error(error, "read", path) from error
    try:
        status = os.fstat(descriptor)
        _refuse(path, status.st_mode)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise atomic_file.io_error(error, "read", path) from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise KeysError(f"{path}: larger than {MAX_BYTES // 1024**2} MiB, so hardly a keys file", code="keys-io")
    return content, status


def _refuse(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise KeysError(f"{path}: not a regular file", code="keys-io")
    if mode & stat.S_IWOTH:
        raise KeysError(
            f"{path}: anybody on this machine may change it (mode {stat.S_IMODE(mode):o})",
            code="keys-writable",
            hint=f"chmod 600 {path}; where the file system has no modes, keep the keys on one that has",
        )


def _warnings(path: Path, keys: KeyFile, mode: int) -> Iterator[Problem]:
    if keys.plaintext:
        yield Problem(
            code="keys-plaintext",
            message=f"{path} holds the keys themselves, readable by whoever gets hold of the file",
            source=str(path),
            hint="`llama-gguf keys import` replaces them by digests",
            severity="warning",
        )
    if mode & 0o077:
        yield Problem(
            code="keys-readable",
            message=f"{path} is open to other users (mode {mode:o})",
            source=str(path),
            hint=f"chmod 600 {path}",
            severity="warning",
        )


class Session:
    """The keys file while its lock is held: what it says, and the right to replace it."""

    def __init__(self, path: Path, keys: KeyFile, at: atomic_file.Steps) -> None:
        self.keys = keys
        self._path = path
        self._at = at

    def write(self, keys: KeyFile) -> None:
        """Replace the file. Returns when the new content is on the disk."""
        text = file_format.render(keys)
        written = file_format.parse(
            text, source=f"{self._path} (as it would be written)", read_at=dt.datetime.now(dt.UTC)
        )
        if written.records != keys.records:
            raise KeysError("the keys would not be read back as they are written", code="keys-syntax")
        atomic_file.replace(self._path, text.encode("utf-8"), at=self._at)
        self.keys = written

    def pepper(self) -> bytes:
        """Return the random secret that belongs to this keys file; made (0600) when it is first needed."""
        path = self._path.with_name(self._path.name + ".pepper")
        try:
            pepper = path.read_bytes()
            mode = path.stat().st_mode
        except FileNotFoundError:
            pepper = secrets.token_bytes(PEPPER_BYTES)
            atomic_file.replace(path, pepper, at=self._at)
            return pepper
        except OSError as error:
            raise atomic_file.io_error(error, "read", path) from error
        if len(pepper) != PEPPER_BYTES or mode & 0o007:
            raise KeysError(
                f"{path} is not {PEPPER_BYTES} bytes that are closed to others (mode {stat.S_IMODE(mode):o})",
                code="keys-pepper",
                hint="remove it and repeat the rotation with a new request id",
            )
        return pepper


class KeyStore:
    """One keys file. A symbolic link is followed, so the link stays and the file behind it is replaced."""

    def __init__(
        self, path: Path, *, lock_timeout_seconds: float = 10.0, at: atomic_file.Steps = atomic_file.no_steps
    ) -> None:
        self.path = path
        self._timeout = lock_timeout_seconds
        self._at = at

    def read(self) -> Loaded:
        """Read the file as it is now. Raises KeysError; a missing file is one too."""
        return load(self.path)

    @contextmanager
    def locked(self, *, convert: bool = False) -> Iterator[Session]:
        """Hold the lock and give the current keys; a missing file has none.

        A file in the old plaintext format may only be changed with `convert`: writing replaces it by digests.
        """
        while True:
            real = atomic_file.resolve(self.path)
            with atomic_file.exclusive(real, timeout_seconds=self._timeout, at=self._at):
                if atomic_file.resolve(self.path) != real:
                    continue  # the link was moved while we waited
                keys = self._current(real)
                if keys.plaintext and not convert:
                    raise KeysError(
                        f"{self.path} is in the old format, which holds the keys themselves; it is only read",
                        code="keys-plaintext",
                        hint="run `llama-gguf keys import` first: it replaces the keys by digests",
                    )
                self._at("read")
                yield Session(real, keys, self._at)
                return

    def _current(self, real: Path) -> KeyFile:
        try:
            return load(real).keys
        except KeysError as error:
            if error.code == "keys-missing":
                return KeyFile()
            raise
