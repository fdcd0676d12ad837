"""Copies what is appended to log files, through rotation, line by line, to one stream.

supervisord rotates by renaming FILE.1 to FILE.2 … and FILE to FILE.1, a name at a time, or by truncating FILE where no
old files are kept. It does so whenever it likes: between two of our looks, and between two steps of one. What is
still on disk is read once and in order all the same; where something was deleted unread, a `Gap` stands for it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llama_gguf.logs import JsonFormatter, TextFormatter, fields
from llama_gguf.timestamps import utc_text

_BLOCK = 65_536
_LONGEST_LINE = 65_536
_WINDOW = 64  # bytes before the position that are compared to see whether a file was truncated and filled again
_SCANS = 50  # a rotation while the files are listed makes the list worthless; so many in a row mean: not now

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands among the lines where others were deleted, or may have been, before they were read.

    `at_least` is how many bytes are missing for certain; 0 where that cannot be known.
    """

    at_least: int


class _OpenFile:
    """One log file, and how far it is read. Its descriptor outlives every rename, and the file's removal."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        status = os.fstat(file.fileno())
        self.identity: Identity = (status.st_dev, status.st_ino)
        self.position = 0
        self._window = b""

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    @property
    def fingerprint(self) -> tuple[int, ...]:
        """Tell a file that is no longer written to from every other, one that was given its inode later included."""
        status = os.fstat(self._file.fileno())
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self) -> bytes | None:
        """Return what comes next, b"" at the end; None if the file was truncated: what comes next is its new start."""
        block = os.pread(self._file.fileno(), _BLOCK, self.position)
        # Asked after reading: if what was read before is still there, the block was not from a newer content.
        if os.pread(self._file.fileno(), len(self._window), self.position - len(self._window)) != self._window:
            self.position, self._window = 0, b""
            return None
        self.position += len(block)
        self._window = (self._window + block)[-_WINDOW:]
        return block

    def close(self) -> None:
        self._file.close()


class FileTail:
    """The complete lines that were appended to one file since the last look; at the first look, all there are.

    `backups` is how many renamed files are kept, `max_bytes` the size at which a file is rotated. Between two looks
    the file last read is held open, so only files that were made and deleted in between are lost.
    """

    def __init__(
        self,
        path: Path,
        *,
        backups: int,
        max_bytes: int = 0,
        open_file: Callable[[Path], io.FileIO] = io.FileIO,
    ) -> None:
        self._path = path
        self._backups = backups
        self._max_bytes = max_bytes
        self._open_file = open_file
        self._current: _OpenFile | None = None
        self._done: deque[tuple[int, ...]] = deque(maxlen=backups + 1)
        self._partial = b""

    def lines(self, *, last: bool = False) -> list[bytes | Gap]:
        """Return new complete lines without their newline; with `last`, an unfinished one too."""
        found: list[bytes | Gap] = []
        newer, joins = self._newer_files()
        try:
            if self._current is not None:
                self._read_on(self._current, found)  # whole, if there is a newer file: it was renamed before we looked
                if newer and not joins:
                    self._break(found, 0)
            while newer:
                self._finish()
                self._current = newer.popleft()
                self._read_on(self._current, found)
        finally:
            _close(newer)
        if last:
            self._end_line(found)
        return found

    def close(self) -> None:
        """Forget the file."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _finish(self) -> None:
        """Let go of a file that has been read to its end and will not be written to again."""
        if self._current is not None:
            self._done.append(self._current.fingerprint)
            self.close()

    def _read_on(self, file: _OpenFile, found: list[bytes | Gap]) -> None:
        """Read what is there now; what a quick writer adds meanwhile comes at the next look."""
        end = file.size
        while True:
            reached = file.position
            block = file.read()
            if block is None:
                # It held at least as many bytes as make supervisord rotate.
                self._break(found, max(0, self._max_bytes - reached))
                end = file.size
                continue
            *complete, self._partial = (self._partial + block).split(b"\n")
            found += complete
            if len(self._partial) > _LONGEST_LINE:
                self._end_line(found)
            if not block or file.position >= end:
                return

    def _break(self, found: list[bytes | Gap], at_least: int) -> None:
        self._end_line(found)
        found.append(Gap(at_least))

    def _end_line(self, found: list[bytes | Gap]) -> None:
        if self._partial:
            found.append(self._partial)
            self._partial = b""

    def _newer_files(self) -> tuple[deque[_OpenFile], bool]:
        """Open the files that are newer than the current one, oldest first; tell if they join on to what was read.

        Empty where rotations were quicker than we: the files are still there, or pinned, at the next look.
        """
        for _ in range(_SCANS):
            newer: deque[_OpenFile] = deque()
            try:
                joins, steady = self._scan(newer)
            except BaseException:
                _close(newer)
                raise
            if steady:
                return newer, joins
            _close(newer)
        return deque(), True

    def _scan(self, newer: deque[_OpenFile]) -> tuple[bool, bool]:
        """Open files from the newest name to the oldest until one is known; tell if one was, and if nothing moved.

        A file's number only grows, by one each rotation, and ours grows by one each step: no file that stays on disk
        can slip past us. One that is made meanwhile could overtake us and be taken for an older one; then the file
        found first no longer has the name it was found under, and the scan does not count.
        """
        first: tuple[Path, Identity] | None = None
        joins = self._current is None
        for number in range(self._backups + 1):
            path = self._named(number)
            try:
                file = _OpenFile(self._open_file(path))
            except FileNotFoundError:
                continue  # in the middle of a rotation any one name may be missing
            first = first or (path, file.identity)
            if self._is_known(file):
                file.close()
                joins = True
                break
            if any(file.identity == other.identity for other in newer):
                file.close()  # renamed since the step before
            else:
                newer.appendleft(file)
        return joins, first is None or _identity(first[0]) == first[1]

    def _is_known(self, file: _OpenFile) -> bool:
        if self._current is not None and file.identity == self._current.identity:
            return True
        return file.fingerprint in self._done

    def _named(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _close(files: deque[_OpenFile]) -> None:
    for file in files:
        file.close()


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def wrap_foreign(program: str, line: bytes, *, clock: Callable[[], float] = time.time) -> bytes:
    """Return `line` as a JSON object in the shape of our own log lines, which pass untouched.

    llama-server writes JSON of another shape, and plain text where something below it speaks.
    """
    if b'"program"' in line and line.startswith(b"{") and line.endswith(b"}"):
        return line
    level, event = "info", line.decode("utf-8", "replace")
    if line.startswith(b"{"):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            level, event = str(found.get("level", level)), str(found.get("msg", event)).rstrip()
    now = utc_text(clock(), "milliseconds")
    return json.dumps({"ts": now, "level": level, "program": program, "event": event}, ensure_ascii=False).encode()


def report(program: str, level: int, event: str, *, form: Literal["text", "json"], **more: object) -> bytes:
    """Return a log line of our own about the log of `program`."""
    record = logging.LogRecord(program, level, "", 0, event, None, None)
    vars(record).update(fields(**more))
    formatter = JsonFormatter(program) if form == "json" else TextFormatter(program)
    return formatter.format(record).encode()


class Follower:
    """A thread that copies the lines of several log files to a descriptor until told to stop.

    A thread, because the reader of our stdout may be slow or stuck, and stopping must not wait for it. `form` is that
    of our own lines; with "json", foreign lines are wrapped into it. `render` says what else is written for a line;
    None is nothing.
    """

    def __init__(
        self,
        tails: Mapping[str, FileTail],
        descriptor: int,
        *,
        form: Literal["text", "json"] = "text",
        render: Callable[[str, bytes], bytes | None] | None = None,
        interval_seconds: float = 0.1,
    ) -> None:
        self._tails = tails
        self._descriptor = descriptor
        self._form = form
        self._render = render
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._unreadable: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        # A descriptor of our own: the thread may outlive a caller who closes his, whose number then means another file.
        self._descriptor = os.dup(self._descriptor)
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Copy what is left and end; gives up on a reader that does not read."""
        self._stopped.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # whoever read our stdout is gone: the log files are still there
            busy = False
            while not self._stopped.wait(0 if busy else self._interval):
                # A program that writes much rotates often, so it is not left alone between two looks.
                busy = self._copy(last=False) >= _BLOCK
            self._copy(last=True)
        for tail in self._tails.values():
            tail.close()
        os.close(self._descriptor)

    def _copy(self, *, last: bool) -> int:
        """Copy what is new and return its size."""
        copied = 0
        for program, tail in self._tails.items():
            lines = self._look(program, tail, last=last)
            copied += sum(len(line) for line in lines if isinstance(line, bytes))
            rendered = (self._render_line(program, line) for line in lines)
            data = b"".join(line + b"\n" for line in rendered if line is not None)
            if data:
                _write_all(self._descriptor, data)
        return copied

    def _look(self, program: str, tail: FileTail, *, last: bool) -> list[bytes | Gap]:
        """Return what is new; what cannot be read is said once, and tried again at the next look."""
        try:
            found = tail.lines(last=last)
        except OSError as why:
            reason = str(why)
            if self._unreadable.get(program) == reason:
                return []
            self._unreadable[program] = reason
            event = "log file cannot be read; trying again"
            return [report(program, logging.WARNING, event, form=self._form, error=reason)]
        self._unreadable.pop(program, None)
        return found

    def _render_line(self, program: str, line: bytes | Gap) -> bytes | None:
        if isinstance(line, Gap):
            event = (
                "log lines were deleted by rotation before they could be copied here; raise logging.max_bytes"
                if line.at_least
                else "the log was rotated out of sight; lines may be missing here; raise logging.max_bytes or backups"
            )
            more = {"lost_bytes_at_least": line.at_least} if line.at_least else {}
            return report(program, logging.WARNING, event, form=self._form, **more)
        if self._render is not None:
            return self._render(program, line)
        return wrap_foreign(program, line) if self._form == "json" else line


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
