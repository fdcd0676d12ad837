"""One download of a file at a time, also for several workers on one network volume.

flock, because the kernel releases it however a process ends. On a file system without locks the download continues
without one: it writes the same bytes to the same offsets, so a second one costs bandwidth, not the file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_gguf.logs import fields

log = logging.getLogger(__name__)

_LOCKS_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def hold(
    path: Path, *, on_wait: Callable[[], None], sleep: Callable[[float], None] = time.sleep, poll_seconds: float = 0.5
) -> Iterator[None]:
    """Hold the lock file `path`, created if missing; blocks while another process holds it, after one `on_wait`."""
    # Read-only, so that workers with different users can share a volume. The file is not removed: that would let two
    # processes hold locks on two files of the same name.
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, path, on_wait, sleep, poll_seconds)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold_now(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, created if missing; yield False, without waiting, if another process holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in _LOCKS_UNSUPPORTED:
                raise
        yield True
    finally:
        os.close(descriptor)


def _acquire(
    descriptor: int, path: Path, on_wait: Callable[[], None], sleep: Callable[[float], None], poll_seconds: float
) -> None:
    waited = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waited:
                on_wait()
                waited = True
            sleep(poll_seconds)
        except OSError as error:
            if error.errno not in _LOCKS_UNSUPPORTED:
                raise
            log.warning(
                "the file system has no locks, continuing without", extra=fields(path=str(path), reason=error.strerror)
            )
            return
        else:
            return
