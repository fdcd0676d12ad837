"""Copies what is appended to log files, through rotation, line by line, to one stream.

supervisord rotates by renaming FILE to FILE.1 (and that to FILE.2 …), or by truncating where no old files are kept.
A file that was renamed is read to its end, then the files after it, so no line is lost or repeated.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_BLOCK = 65_536
_LONGEST_LINE = 65_536


class FileTail:
    """The complete lines that were appended to one file since the last look; at the first look, all there are.

    `backups` is how many renamed files are kept.
    """

    def __init__(self, path: Path, *, backups: int) -> None:
        self._path = path
        self._backups = backups
        self._file: io.FileIO | None = None
        self._partial = b""

    def lines(self, *, last: bool = False) -> list[bytes]:
        """Return new complete lines without their newline; with `last`, an unfinished one too."""
        found: list[bytes] = []
        while True:
            if self._file is None and not self._open_oldest(self._backups):
                break
            rotated = self._rotated()  # asked first: what is renamed is no longer written to, so reading ends it
            found += self._read()
            if not rotated or not self._advance():
                break
        if last and self._partial:
            found.append(self._partial)
            self._partial = b""
        return found

    def close(self) -> None:
        """Forget the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> bool:
        try:
            found = io.FileIO(path)
        except FileNotFoundError:
            return False  # and what was open stays open
        self.close()
        self._file = found
        return True

    def _read(self) -> list[bytes]:
        assert self._file is not None  # noqa: S101 - `lines` opened it
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # truncated: its start is new
            self._partial = b""
        found: list[bytes] = []
        while block := self._file.read(_BLOCK):
            *complete, self._partial = (self._partial + block).split(b"\n")
            found += complete
            if len(self._partial) > _LONGEST_LINE:
                found.append(self._partial)
                self._partial = b""
        return found

    def _rotated(self) -> bool:
        assert self._file is not None  # noqa: S101 - `lines` opened it
        # No file at all: between the rename and the new file, so look again later.
        return _inode(self._path) not in {os.fstat(self._file.fileno()).st_ino, None}

    def _advance(self) -> bool:
        """Open the file that was written after the renamed one."""
        assert self._file is not None  # noqa: S101 - `lines` opened it
        ours = os.fstat(self._file.fileno()).st_ino
        older = [number for number in range(1, self._backups + 1) if _inode(self._backup(number)) == ours]
        # Rotated out of sight altogether: the oldest file that is left comes next.
        return self._open_oldest(older[0] - 1 if older else self._backups)

    def _open_oldest(self, number: int) -> bool:
        """Open the oldest file there is, from backup `number` down to the one being written."""
        candidates = [*(self._backup(older) for older in range(number, 0, -1)), self._path]
        return any(self._open(path) for path in candidates)

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


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
    now = dt.datetime.fromtimestamp(clock(), dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"ts": now, "level": level, "program": program, "event": event}, ensure_ascii=False).encode()


class Follower:
    """A thread that copies the lines of several log files to a descriptor until told to stop.

    `render` says what is written for a line; None is nothing.

    A thread, because the reader of our stdout may be slow or stuck, and stopping must not wait for it.
    """

    def __init__(
        self,
        tails: Mapping[str, FileTail],
        descriptor: int,
        *,
        render: Callable[[str, bytes], bytes | None] = lambda _program, line: line,
        interval_seconds: float = 0.1,
    ) -> None:
        self._tails = tails
        self._descriptor = descriptor
        self._render = render
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Copy what is left and end; gives up on a reader that does not read."""
        self._stopped.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # whoever read our stdout is gone: the log files are still there
            while not self._stopped.wait(self._interval):
                self._copy(last=False)
            self._copy(last=True)
        for tail in self._tails.values():
            tail.close()

    def _copy(self, *, last: bool) -> None:
        for program, tail in self._tails.items():
            lines = tail.lines(last=last)
            if lines:
                rendered = (self._render(program, line) for line in lines)
                _write_all(self._descriptor, b"".join(line + b"\n" for line in rendered if line is not None))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
