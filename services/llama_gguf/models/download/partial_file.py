"""The partial file of a download, and the sidecar that records which of its bytes are valid.

`NAME.part` has its full length from the start where the size is known, so only the sidecar `NAME.part.json` tells which
bytes are downloaded. It never runs ahead of the disk: bytes are synced before it lists them, and it is replaced
atomically. A rename at the end is the only way to NAME.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from pathlib import Path

from llama_gguf.atomic_file import sync
from llama_gguf.models.download.errors import no_space
from llama_gguf.models.download.segments import Span, merged

SPARE_BYTES = 64 * 1024 * 1024
_MAX_BUFFERS = 256  # well below the kernel's IOV_MAX
_CANNOT_ALLOCATE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.EINTR}


def part_of(destination: Path) -> Path:
    """Return the partial file of a download to `destination`."""
    return destination.with_name(destination.name + ".part")


class PartialFile:
    """One partial file. `validator`, `size` and `done` are as the sidecar says; "" and None where not known.

    Of its methods only `write` and `read_into` can run in several threads at a time. Raises OSError.
    """

    def __init__(self, destination: Path) -> None:
        self.path = part_of(destination)
        self.validator = ""
        self.size: int | None = None
        self.done: tuple[Span, ...] = ()
        self._destination = destination
        self._sidecar = destination.with_name(destination.name + ".part.json")
        self._new_sidecar = destination.with_name(destination.name + ".part.json.new")
        self._descriptor: int | None = None

    def resume(self) -> None:
        """Open what an earlier process left, if its sidecar is valid; else start with nothing."""
        try:
            length = self.path.stat().st_size
            sidecar = json.loads(self._sidecar.read_text(encoding="utf-8"))
            self.validator, self.size, self.done = _checked(sidecar, length)
        except (FileNotFoundError, ValueError):
            self.discard()
            return
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def restart(self, validator: str, size: int | None) -> None:
        """Create a new, empty file. Raises ModelError when there is no space for it."""
        self.discard()
        _check_space(self.path.parent, size or 0)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.allocate(validator, size)

    def allocate(self, validator: str, size: int | None) -> None:
        """Allocate the full length and record what it is part of. Raises ModelError when there is no space."""
        self.validator, self.size = validator, size
        if size is None:
            self.save(self.done)
            return
        status = os.fstat(self._file)
        _check_space(self.path.parent, size - status.st_blocks * 512)
        # Saved first: with a sidecar of the former format, a file of full length would be taken as complete.
        self.save(self.done)
        if status.st_size < size:
            _fallocate(self._file, size)

    def write(self, chunks: list[bytes], position: int) -> None:
        """Write `chunks` consecutively, starting at `position`."""
        views = [memoryview(chunk) for chunk in chunks]
        while views:
            count = os.pwritev(self._file, views[:_MAX_BUFFERS], position)
            position += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]

    def read_into(self, buffer: memoryview, position: int) -> int:
        """Read, starting at `position`; return the number of bytes read."""
        return os.preadv(self._file, [buffer], position)

    def save(self, done: tuple[Span, ...]) -> None:
        """Make the spans `done`, which are written, durable."""
        sync(self._file, data_only=True)
        # "version", not the former format's "validator": an older program must not take the length for the progress.
        sidecar = {"version": self.validator, "size": self.size, "done": done}
        with self._new_sidecar.open("w", encoding="utf-8") as file:
            json.dump(sidecar, file)
            file.flush()
            sync(file.fileno())
        self._new_sidecar.replace(self._sidecar)
        self.done = done

    def finish(self) -> None:
        """Rename the file, which is complete, to the destination."""
        sync(self._file)
        ours, current = os.fstat(self._file), self.path.stat()
        if (ours.st_dev, ours.st_ino) != (current.st_dev, current.st_ino):  # where there are no locks
            raise OSError(errno.EBUSY, "another process started the same download")
        self.path.replace(self._destination)
        self._remove_sidecar()
        self.close()

    def discard(self) -> None:
        """Remove the file and its sidecar. A new one gets a new inode: another process may have the old one open."""
        self.close()
        self.validator, self.size, self.done = "", None, ()
        self._remove_sidecar()  # before the file: a sidecar without a file is ignored
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, which is retained for the next attempt."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _remove_sidecar(self) -> None:
        self._sidecar.unlink(missing_ok=True)
        self._new_sidecar.unlink(missing_ok=True)  # a process was killed between its two steps

    @property
    def _file(self) -> int:
        if self._descriptor is None:
            raise ValueError("the partial file is not open")
        return self._descriptor


def _checked(sidecar: object, length: int) -> tuple[str, int | None, tuple[Span, ...]]:
    """Return validator, size and done of the sidecar of a file of `length` bytes. Raises ValueError if inconsistent."""
    match sidecar:
        case {"validator": str(validator)}:  # the former format, where the length is the progress
            return validator, None, merged([(0, length)])
        case {"version": str(validator), "size": int() | None as size, "done": list(pairs)}:
            spans = tuple(tuple(pair) if isinstance(pair, list) else () for pair in pairs)
            ends = [0, *(bound for span in spans for bound in span)]
            numbers = all(type(bound) is int for bound in ends) and all(len(span) == 2 for span in spans)
            if numbers and min(ends) == 0 and merged(spans) == spans and ends[-1] <= length <= (size or length):
                return validator, size, spans
    raise ValueError("not a valid sidecar of this file")


def _fallocate(descriptor: int, size: int) -> None:
    """Allocate the space, so that a full disk is reported now; where the file system cannot, only set the length.

    With fallocate itself: os.posix_fallocate writes to every block where the file system does not support it.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is not None:
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if fallocate(descriptor, 0, 0, size) == 0:
            return
        number = ctypes.get_errno()
        if number not in _CANNOT_ALLOCATE:
            raise OSError(number, os.strerror(number))
    os.ftruncate(descriptor, size)


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > 0 and needed + SPARE_BYTES > free:
        raise no_space(directory, needed, free)
