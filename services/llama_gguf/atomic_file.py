"""Replacing a small private file, so that whoever reads it finds the old content or the new, never a third thing.

Owns the order of the system calls: lock, write a neighbour, fsync it, rename it over the file, fsync the directory.
`at` is told each step that is done; tests kill the process there. What need not survive a crash of the machine does
without lock and fsync: `write_private_json`. Knows nothing of keys but the errors it raises.
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

Steps = Callable[[str], None]

_CHUNK = 65_536
_POLL_SECONDS = 0.02
_HINTS = {
    errno.EACCES: "this process runs as uid {uid}; give it the directory, or run the command as the file's owner",
    errno.EPERM: "this process runs as uid {uid}; give it the directory, or run the command as the file's owner",
    errno.EROFS: "it lies on a read-only mount, such as a Kubernetes Secret; change it where it comes from",
    errno.EBUSY: "it is mounted as a single file, which cannot be replaced; mount the directory that holds it instead",
    errno.ENOSPC: "free some space; the old content is untouched",
    errno.EDQUOT: "free some space; the old content is untouched",
    errno.ELOOP: "a symbolic link stands where a file of ours belongs; remove it",
    errno.ENOLCK: "this file system has no locks; put the file on one that has",
    errno.EOPNOTSUPP: "this file system has no locks; put the file on one that has",
}


def no_steps(_name: str) -> None:
    """Take no notice of steps."""


def io_error(error: OSError, doing: str, path: Path) -> KeysError:
    """Turn an OSError into one that says what cannot be done, to which file, and what to do about it."""
    hint = _HINTS.get(error.errno or 0, "").format(uid=os.geteuid())
    return KeysError(f"cannot {doing} {path}: {os.strerror(error.errno or 0)}", code="keys-io", hint=hint)


def resolve(path: Path) -> Path:
    """Return the file behind `path`: links are followed, so that a change goes into the file and the link stays."""
    return Path(os.path.realpath(path))


def make_parents(path: Path) -> None:
    """Make the directories above `path` that are missing, each 0700."""
    missing = []
    parent = path.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            give_to_owner_of(directory.parent, directory)
            sync_directory(directory.parent)
    except OSError as error:
        raise io_error(error, "make the directory of", path) from error


@contextmanager
def exclusive(path: Path, *, timeout_seconds: float = 10.0, at: Steps = no_steps) -> Iterator[None]:
    """Hold the lock that belongs to `path`, the file `<path>.lock`, which stays. Blocks for `timeout_seconds` at most.

    Raises KeysError with the exit code TEMPORARY if somebody else holds it all that time.
    """
    lock = path.with_name(path.name + ".lock")
    make_parents(lock)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise io_error(error, "lock", lock) from error
    try:
        give_to_owner_of(lock.parent, lock)
        _wait_for(descriptor, lock, timeout_seconds)
        at("locked")
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


def replace(path: Path, data: bytes, *, at: Steps = no_steps) -> None:
    """Make `data` the content of `path`, 0600. The caller holds the lock; returns when the disk has it.

    Run as root, the file goes to whom it belonged, or else to the owner of its directory: a key made by
    `docker exec -u root` must not lock out the gateway, which runs as somebody else.
    """
    neighbour = _neighbour(path)
    try:
        descriptor = _open_anew(neighbour)
        try:
            at("created")
            give_to_owner_of(path if path.exists() else path.parent, neighbour)
            for start in range(0, len(data), _CHUNK):
                write_all(descriptor, data[start : start + _CHUNK])
                at("written")
            os.fsync(descriptor)
            at("synced")
        finally:
            os.close(descriptor)
        neighbour.replace(path)
        at("renamed")
        sync_directory(path.parent)
        at("directory-synced")
    except OSError as error:
        with suppress(OSError):
            neighbour.unlink(missing_ok=True)
        raise io_error(error, "replace", path) from error


def write_private_json(value: object, path: Path, *, indent: int | None = None) -> None:
    """Make `value` the content of `path`, 0600; it may be lost if the machine crashes. Raises OSError."""
    data = json.dumps(value, indent=indent).encode("ascii")
    neighbour = _neighbour(path)
    with os.fdopen(_open_anew(neighbour), "wb") as file:
        file.write(data)
    neighbour.replace(path)


def _neighbour(path: Path) -> Path:
    return path.with_name(path.name + ".new")  # one name: what a crash leaves is swept by the next change


def _open_anew(path: Path) -> int:
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a directory; there is nothing better to do on them.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def give_to_owner_of(model: Path, path: Path) -> None:
    """As root, let `path` belong to whom `model` does; otherwise do nothing."""
    if os.geteuid() == 0:
        owner = model.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
