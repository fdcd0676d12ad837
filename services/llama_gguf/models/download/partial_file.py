"""The unfinished file of a download, and the notes beside it that say what of it can be trusted.

`NAME.part` has its full length from the start where the size is known, so only `NAME.part.json` knows which bytes are
real. The notes never run ahead of the disk: bytes are synced before a note names them, and a note replaces the one
before it whole. A rename at the end is the only way to NAME.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from pathlib import Path

from llama_gguf.models.download.errors import no_room
from llama_gguf.models.download.segments import Span, merged

_SPARE_BYTES = 64 * 1024 * 1024
_MOST_BUFFERS = 256  # well below what the kernel takes at a time
_CANNOT_ALLOCATE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.EINTR}


class Part:
    """One unfinished file. `version`, `size` and `done` are as the notes say; "" and None where not known.

    Of its methods only `write` and `read_into` may run in several threads at a time. Raises OSError.
    """

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(destination.name + ".part")
        self.version = ""
        self.size: int | None = None
        self.done: tuple[Span, ...] = ()
        self._destination = destination
        self._notes = destination.with_name(destination.name + ".part.json")
        self._next_notes = destination.with_name(destination.name + ".part.json.new")
        self._descriptor: int | None = None

    def take_up(self) -> None:
        """Open what an earlier process left, if its notes are good; else begin with nothing."""
        try:
            length = self.path.stat().st_size
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
            self.version, self.size, self.done = _trusted(notes, length)
        except (FileNotFoundError, ValueError):
            self.discard()
            return
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def restart(self, version: str, size: int | None) -> None:
        """Make a new, empty file. Raises ModelError when there is no room for it."""
        self.discard()
        _check_space(self.path.parent, size or 0)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.plan(version, size)

    def plan(self, version: str, size: int | None) -> None:
        """Give the file its full length and note what it is part of. Raises ModelError when there is no room."""
        self.version, self.size = version, size
        if size is None:
            self.save(self.done)
            return
        status = os.fstat(self._file)
        _check_space(self.path.parent, size - status.st_blocks * 512)
        # Noted first: a file with its full length but the notes of the present length would be taken as complete.
        self.save(self.done)
        if status.st_size < size:
            _allocate(self._file, size)

    def write(self, chunks: list[bytes], position: int) -> None:
        """Write `chunks`, one after the other, from `position` on."""
        views = [memoryview(chunk) for chunk in chunks]
        while views:
            count = os.pwritev(self._file, views[:_MOST_BUFFERS], position)
            position += count
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]

    def read_into(self, buffer: memoryview, position: int) -> int:
        """Read from `position` on; return how many bytes came."""
        return os.preadv(self._file, [buffer], position)

    def save(self, done: tuple[Span, ...]) -> None:
        """Make `done`, which has been written, survive whatever may come."""
        os.fdatasync(self._file)
        # "version", not the former format's "validator": an older program must not take the length for the progress.
        notes = {"version": self.version, "size": self.size, "done": done}
        with self._next_notes.open("w", encoding="utf-8") as file:
            json.dump(notes, file)
            file.flush()
            os.fsync(file.fileno())
        self._next_notes.replace(self._notes)
        self.done = done

    def finish(self) -> None:
        """Turn the file, which is complete, into the destination."""
        os.fsync(self._file)
        ours, there = os.fstat(self._file), self.path.stat()
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):  # where there are no locks
            raise OSError(errno.EBUSY, "another process began the same download")
        self.path.replace(self._destination)
        self._forget_notes()
        self.close()

    def discard(self) -> None:
        """Remove the file and its notes. A new one gets a new inode: another process may hold the old one open."""
        self.close()
        self.version, self.size, self.done = "", None, ()
        self._forget_notes()  # before the file: notes without a file are nothing
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file, which stays for the next try."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _forget_notes(self) -> None:
        self._notes.unlink(missing_ok=True)
        self._next_notes.unlink(missing_ok=True)  # a process was killed between its two steps

    @property
    def _file(self) -> int:
        if self._descriptor is None:
            raise ValueError("the part is not open")
        return self._descriptor


def _trusted(notes: object, length: int) -> tuple[str, int | None, tuple[Span, ...]]:
    """Return version, size and done of `notes` about a file of `length` bytes. Raises ValueError unless all fits."""
    match notes:
        case {"validator": str(version)}:  # the former format, where the length is the progress
            return version, None, merged([(0, length)])
        case {"version": str(version), "size": int() | None as size, "done": list(pairs)}:
            spans = tuple(tuple(pair) if isinstance(pair, list) else () for pair in pairs)
            ends = [0, *(bound for span in spans for bound in span)]
            numbers = all(type(bound) is int for bound in ends) and all(len(span) == 2 for span in spans)
            if numbers and min(ends) == 0 and merged(spans) == spans and ends[-1] <= length <= (size or length):
                return version, size, spans
    raise ValueError("no notes of ours, or not about this file")


def _allocate(descriptor: int, size: int) -> None:
    """Reserve the space, so that a full disk shows now; where the file system cannot, only set the length.

    By fallocate itself: os.posix_fallocate writes into every block where the file system has nothing better.
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
    if needed > 0 and needed + _SPARE_BYTES > free:
        raise no_room(directory, needed, free)
