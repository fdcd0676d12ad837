"""Copies the lines appended to log files to one stream, through rotation, like `tail -F`.

supervisord rotates by renaming FILE.1 to FILE.2 … and FILE to FILE.1, one name at a time, or by truncating FILE where
it keeps no backups. That can happen at any time: between two reads, and between two steps of one. Everything still on
disk is read once and in order all the same; a `Gap` stands for what was deleted unread.
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

_BLOCK_BYTES = 65_536
_MAX_LINE_BYTES = 65_536
_WINDOW_BYTES = 64  # before the position; compared to detect that a file was truncated and written again
_MAX_SCANS = 50  # a rotation during a scan invalidates it; after so many in a row, try later

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands for lines that were deleted, or may have been, before they were read.

    `at_least` is the known minimum of missing bytes; 0 where it is unknown.
    """

    at_least: int


class _OpenFile:
    """One log file and the read position. Its file descriptor stays valid when the file is renamed or deleted."""

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
        """Identify a file that is no longer written, also against a later one with the same inode."""
        status = os.fstat(self._file.fileno())
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self) -> bytes | None:
        """Return the next block, b"" at the end; None if the file was truncated: the next read begins at its start."""
        block = os.pread(self._file.fileno(), _BLOCK_BYTES, self.position)
        # Checked after reading: if the bytes before the block are unchanged, the block belongs to the same content.
        if os.pread(self._file.fileno(), len(self._window), self.position - len(self._window)) != self._window:
            self.position, self._window = 0, b""
            return None
        self.position += len(block)
        self._window = (self._window + block)[-_WINDOW_BYTES:]
        return block

    def close(self) -> None:
        self._file.close()


class FileTail:
    """The complete lines appended to one file since the last read; at the first read, all lines.

    `backups` is the number of rotated files, `max_bytes` the size at which a file is rotated. Between two reads the
    last file stays open, so only files that were created and deleted in between are lost.
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
        """Return new complete lines without their newline; with `last`, an incomplete one too."""
        found: list[bytes | Gap] = []
        newer, follows = self._newer_files()
        try:
            if self._current is not None:
                self._read_on(self._current, found)  # to its end if there is a newer file: then it was renamed
                if newer and not follows:
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
        """Close the file."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _finish(self) -> None:
        """Close a file that has been read to its end and will not be written again."""
        if self._current is not None:
            self._done.append(self._current.fingerprint)
            self.close()

    def _read_on(self, file: _OpenFile, found: list[bytes | Gap]) -> None:
        """Read up to the present end; what is appended meanwhile comes with the next read."""
        end = file.size
        while True:
            reached = file.position
            block = file.read()
            if block is None:
                # It had at least the size at which supervisord rotates.
                self._break(found, max(0, self._max_bytes - reached))
                end = file.size
                continue
            *complete, self._partial = (self._partial + block).split(b"\n")
            found += complete
            if len(self._partial) > _MAX_LINE_BYTES:
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
        """Open the files newer than the current one, oldest first; return whether they directly follow what was read.

        Empty where every scan was overtaken by a rotation: the next read finds the files, or holds them open.
        """
        for _ in range(_MAX_SCANS):
            newer: deque[_OpenFile] = deque()
            try:
                follows, steady = self._scan(newer)
            except BaseException:
                _close(newer)
                raise
            if steady:
                return newer, follows
            _close(newer)
        return deque(), True

    def _scan(self, newer: deque[_OpenFile]) -> tuple[bool, bool]:
        """Open files from the newest name to the oldest until one is known; return whether one was, and none moved.

        A file's number only grows, by one each rotation, and the scan's by one each step: it misses no file that stays
        on disk. A file created meanwhile could be taken for an older one; then the file found first no longer has the
        name it was found under, and the scan is invalid.
        """
        first: tuple[Path, Identity] | None = None
        follows = self._current is None
        for number in range(self._backups + 1):
            path = self._named(number)
            try:
                file = _OpenFile(self._open_file(path))
            except FileNotFoundError:
                continue  # during a rotation any one name can be missing
            first = first or (path, file.identity)
            if self._is_known(file):
                file.close()
                follows = True
                break
            if any(file.identity == other.identity for other in newer):
                file.close()  # renamed since the previous step
            else:
                newer.appendleft(file)
        return follows, first is None or _identity(first[0]) == first[1]

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


def to_json_line(program: str, line: bytes, *, clock: Callable[[], float] = time.time) -> bytes:
    """Return `line` as JSON with the fields of our own log lines, which are returned unchanged.

    llama-server writes JSON with other fields, and its libraries plain text.
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


def report(program: str, level: int, event: str, *, log_format: Literal["text", "json"], **more: object) -> bytes:
    """Return our own log line about the log of `program`."""
    record = logging.LogRecord(program, level, "", 0, event, None, None)
    vars(record).update(fields(**more))
    formatter = JsonFormatter(program) if log_format == "json" else TextFormatter(program)
    return formatter.format(record).encode()


class Follower:
    """A thread that copies the lines of several log files to a file descriptor until it is stopped.

    A thread, because the reader of our stdout can be slow or blocked, and stopping must not wait for it. `log_format`
    is that of our own lines; with "json", all lines are converted. `render` returns what is written instead of a line,
    None for nothing.
    """

    def __init__(
        self,
        tails: Mapping[str, FileTail],
        descriptor: int,
        *,
        log_format: Literal["text", "json"] = "text",
        render: Callable[[str, bytes], bytes | None] | None = None,
        interval_seconds: float = 0.1,
    ) -> None:
        self._tails = tails
        self._descriptor = descriptor
        self._format = log_format
        self._render = render
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._unreadable: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def start(self) -> None:
        """Start copying."""
        # A duplicate: the thread can outlive a caller that closes the original, whose number is then reused.
        self._descriptor = os.dup(self._descriptor)
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Copy what is left and end; gives up on a blocked reader after the timeout."""
        self._stopped.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the reader of stdout has closed it: the log files remain
            busy = False
            while not self._stopped.wait(0 if busy else self._interval):
                # A program that writes much rotates often, so it is read again without a pause.
                busy = self._copy(last=False) >= _BLOCK_BYTES
            self._copy(last=True)
        for tail in self._tails.values():
            tail.close()
        os.close(self._descriptor)

    def _copy(self, *, last: bool) -> int:
        """Copy new lines and return their size."""
        copied = 0
        for program, tail in self._tails.items():
            lines = self._read_lines(program, tail, last=last)
            copied += sum(len(line) for line in lines if isinstance(line, bytes))
            rendered = (self._render_line(program, line) for line in lines)
            data = b"".join(line + b"\n" for line in rendered if line is not None)
            if data:
                _write_all(self._descriptor, data)
        return copied

    def _read_lines(self, program: str, tail: FileTail, *, last: bool) -> list[bytes | Gap]:
        """Return the new lines; an unreadable file is logged once, and tried again at the next read."""
        try:
            found = tail.lines(last=last)
        except OSError as error:
            reason = str(error)
            if self._unreadable.get(program) == reason:
                return []
            self._unreadable[program] = reason
            event = "log file cannot be read; trying again"
            return [report(program, logging.WARNING, event, log_format=self._format, error=reason)]
        self._unreadable.pop(program, None)
        return found

    def _render_line(self, program: str, line: bytes | Gap) -> bytes | None:
        if isinstance(line, Gap):
            event = (
                "log lines were deleted by rotation before they could be copied here; raise logging.max_bytes"
                if line.at_least
                else "the log was rotated between two reads; lines may be missing; raise logging.max_bytes or backups"
            )
            more = {"lost_bytes_at_least": line.at_least} if line.at_least else {}
            return report(program, logging.WARNING, event, log_format=self._format, **more)
        if self._render is not None:
            return self._render(program, line)
        return to_json_line(program, line) if self._format == "json" else line


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
