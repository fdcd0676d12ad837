"""Replacing a small private file atomically: a reader finds the old content or the new.

Owns the order of the system calls: lock, write a temporary file, fsync it, rename it over the file, fsync the
directory. `failpoint` is called after each; tests kill the process there. `write_private_json` is for what need not
survive a crash of the machine: without lock and fsync.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_gguf.errors import ExitCode, KeysError

Failpoint = Callable[[str], None]

_CHUNK = 65_536
_POLL_SECONDS = 0.02
_HINTS = {
    errno.EACCES: "this process runs as uid {uid}; chown the directory to it, or run the command as the file's owner",
    errno.EPERM: "this process runs as uid {uid}; chown the directory to it, or run the command as the file's owner",
    errno.EROFS: "it is on a read-only mount, such as a Kubernetes Secret; change the source of the mount",
    errno.EBUSY: "it is mounted as a single file, which cannot be replaced; mount its directory instead",
    errno.ENOSPC: "free some space; the old content is unchanged",
    errno.EDQUOT: "free some space; the old content is unchanged",
    errno.ELOOP: "it is a symbolic link, where a regular file is required; remove the link",
    errno.ENOLCK: "this file system does not support locks; move the file to one that does",
    errno.EOPNOTSUPP: "this file system does not support locks; move the file to one that does",
}


_CANNOT_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


def no_failpoint(_name: str) -> None:
    """Do nothing."""


def io_error(error: OSError, doing: str, path: Path) -> KeysError:
    """Return the error that says what failed, for which file, and what to do about it."""
    hint = _HINTS.get(error.errno or 0, "").format(uid=os.geteuid())
    return KeysError(f"cannot {doing} {path}: {os.strerror(error.errno or 0)}", code="keys-io", hint=hint)


def resolve(path: Path) -> Path:
    """Return the target of `path` with symbolic links resolved, so that a change replaces the target and not a link."""
    return Path(os.path.realpath(path))


def make_parents(path: Path) -> None:
    """Create the missing parent directories of `path`, each 0700."""
    missing = []
    parent = path.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            chown_like(directory.parent, directory)
            sync_directory(directory.parent)
    except OSError as error:
        raise io_error(error, "create the directory of", path) from error


@contextmanager
def exclusive(path: Path, *, timeout_seconds: float = 10.0, failpoint: Failpoint = no_failpoint) -> Iterator[None]:
    """Hold the lock of `path`, on the file `<path>.lock`, which is not removed. Blocks for at most `timeout_seconds`.

    Raises KeysError with the exit code TEMPORARY at the timeout.
    """
    lock = path.with_name(path.name + ".lock")
    make_parents(lock)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise io_error(error, "lock", lock) from error
    try:
        chown_like(lock.parent, lock)
        _wait_for(descriptor, lock, timeout_seconds)
        failpoint("locked")
        yield
    finally:
        os.close(descriptor)  # closing releases the lock


def _wait_for(descriptor: int, lock: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                busy = KeysError(
                    f"{lock} has been held by another process for {timeout_seconds:g} s",
                    code="keys-busy",
                    hint="try again",
                )
                busy.exit_code = ExitCode.TEMPORARY
                raise busy from None
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise io_error(error, "lock", lock) from error
        else:
            return


def replace(path: Path, data: bytes, *, failpoint: Failpoint = no_failpoint) -> None:
    """Replace the content of `path` with `data`, 0600, durably (fsync). The caller holds the lock.

    As root, the file keeps its owner, a new one gets that of its directory: a key created by `docker exec -u root` must
    stay readable for the gateway, which runs as another user.
    """
    temporary = _temporary_path(path)
    try:
        descriptor = _create_exclusive(temporary)
        try:
            failpoint("created")
            chown_like(path if path.exists() else path.parent, temporary)
            for start in range(0, len(data), _CHUNK):
                write_all(descriptor, data[start : start + _CHUNK])
                failpoint("written")
            sync(descriptor)
            failpoint("synced")
        finally:
            os.close(descriptor)
        temporary.replace(path)
        failpoint("renamed")
        sync_directory(path.parent)
        failpoint("directory-synced")
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise io_error(error, "replace", path) from error


def write_private_json(value: object, path: Path, *, indent: int | None = None) -> None:
    """Replace the content of `path` with `value`, 0600; a crash of the machine can lose it. Raises OSError."""
    data = json.dumps(value, indent=indent).encode("ascii")
    temporary = _temporary_path(path)
    with os.fdopen(_create_exclusive(temporary), "wb") as file:
        file.write(data)
    temporary.replace(path)


def _temporary_path(path: Path) -> Path:
    return path.with_name(path.name + ".new")  # a fixed name, so that the next change removes what a crash left


def _create_exclusive(path: Path) -> int:
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, also where one call writes only a part."""
    while data:
        data = data[os.write(descriptor, data) :]


def sync_directory(directory: Path) -> None:
    """fsync a directory, so that renames in it are durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int, *, data_only: bool = False) -> None:
    """fsync or fdatasync, where the file system can: some network ones cannot, directories least of all."""
    try:
        (os.fdatasync if data_only else os.fsync)(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def chown_like(reference: Path, path: Path) -> None:
    """As root, give `path` the owner and group of `reference`; otherwise do nothing."""
    if os.geteuid() == 0:
        owner = reference.stat()
        try:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        except PermissionError:  # file systems without owners refuse even what changes nothing
            now = path.lstat()
            if (owner.st_uid, owner.st_gid) != (now.st_uid, now.st_gid):
                raise
