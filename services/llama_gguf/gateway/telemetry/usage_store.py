"""The usage of each key by model and day, persisted in SQLite.

Owns the file. `record` only adds to sums in memory; a background thread writes them in one transaction per second, so a
killed process loses the last second or two. Without a writable file the counts are in memory only, and a warning is
logged.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from llama_gguf.errors import ExitCode, LlamaGgufError
from llama_gguf.logs import fields
from llama_gguf.timestamps import utc_day

_log = logging.getLogger(__name__)

By = Literal["key", "model", "day"]

_DAY_SECONDS = 86_400
_FLUSH_SECONDS = 1.0
_BUSY_SECONDS = 5.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    day TEXT NOT NULL,          -- UTC, YYYY-MM-DD
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    prompt INTEGER NOT NULL,    -- cached ones included
    cached INTEGER NOT NULL,
    completion INTEGER NOT NULL,
    PRIMARY KEY (day, key_id, model)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, key_id, model) DO UPDATE SET
    requests = requests + excluded.requests, errors = errors + excluded.errors, prompt = prompt + excluded.prompt,
    cached = cached + excluded.cached, completion = completion + excluded.completion
"""
_MONTH = "SELECT key_id, SUM(prompt + completion) FROM usage WHERE day >= ? GROUP BY key_id"
_SUMS = "SUM(requests), SUM(errors), SUM(prompt), SUM(cached), SUM(completion) FROM usage WHERE day >= ?"
_GROUPED: dict[By, str] = {
    "key": f"SELECT key_id, {_SUMS} GROUP BY key_id ORDER BY SUM(prompt + completion) DESC, key_id",
    "model": f"SELECT model, {_SUMS} GROUP BY model ORDER BY SUM(prompt + completion) DESC, model",
    "day": f"SELECT day, {_SUMS} GROUP BY day ORDER BY day",
}


Sums = dict[tuple[str, str, str], list[int]]
"""By day, key and model: requests, errors, and prompt, cached and completion tokens."""


class Used(NamedTuple):
    """Sums over a group of requests; `name` is the key's id, the model or the day (UTC)."""

    name: str
    requests: int
    errors: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class UsageError(LlamaGgufError):
    """The usage file cannot be read."""

    exit_code = ExitCode.UNAVAILABLE


def read(path: Path, *, by: By, since: str) -> list[Used]:
    """Return the usage since the day `since` (YYYY-MM-DD, UTC), nothing if the file does not exist yet.

    Can run concurrently with the gateway, which it does not block. Raises UsageError.
    """
    if not path.exists():
        return []
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            return [Used(*row) for row in connection.execute(_GROUPED[by], (since,))]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise UsageError(
            f"{path}: the usage file cannot be read: {error}",
            hint="limits.usage_file names the file the gateway writes",
        ) from error


class UsageStore:
    """Records usage. `record` and `month_tokens` are called from one thread; another one writes.

    With `path` None the counts are in memory only. `close` writes what is left.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], float] = time.time,
        flush_seconds: float = _FLUSH_SECONDS,
    ) -> None:
        self._path = path
        self._clock = clock
        self._flush_seconds = flush_seconds
        self._fresh: Sums = {}  # not yet passed to the writer; guarded by the lock
        self._lock = threading.Lock()
        self._day = ""
        self._day_end = 0.0
        self._month: dict[str, int] = {}
        self._stop = threading.Event()
        self._writer: _Writer | None = None
        self._thread: threading.Thread | None = None

    @property
    def write_failures(self) -> int:
        """The number of writes that have failed since the start."""
        return self._writer.failures if self._writer is not None else 0

    def open(self) -> None:
        """Open the file and start writing. If the file cannot be used, that is logged, and the gateway still starts."""
        self._new_day()
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = _Writer(self._path)
            self._month = self._writer.month_tokens(self._day[:8] + "01")
        except (OSError, sqlite3.Error) as error:
            self._writer = None
            _log.warning(
                "usage is counted in memory only and is lost on restart: the usage file cannot be used",
                extra=fields(file=str(self._path), reason=str(error), setting="limits.usage_file"),
            )
            return
        self._thread = threading.Thread(target=self._write_on, args=(self._writer,), name="usage", daemon=True)
        self._thread.start()

    def record(
        self, key_id: str, model: str, *, requests: int, errors: int, prompt: int, cached: int, completion: int
    ) -> None:
        """Count requests, `errors` of which failed, and their tokens. Never waits."""
        if self._clock() >= self._day_end:
            self._new_day()
        if self._writer is not None:
            where = (self._day, key_id, model)
            with self._lock:
                sums = self._fresh.get(where)
                if sums is None:
                    sums = self._fresh[where] = [0, 0, 0, 0, 0]
                sums[0] += requests
                sums[1] += errors
                sums[2] += prompt
                sums[3] += cached
                sums[4] += completion
        self._month[key_id] = self._month.get(key_id, 0) + prompt + completion

    def month_tokens(self, key_id: str) -> int:
        """Return the tokens a key has used this calendar month (UTC), including before this process started."""
        if self._clock() >= self._day_end:
            self._new_day()
        return self._month.get(key_id, 0)

    def close(self) -> None:
        """Write what is left and close the file. Can take as long as one write."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _new_day(self) -> None:
        now = self._clock()
        day = utc_day(now)
        if day[:7] != self._day[:7]:
            self._month = {}
        self._day = day
        self._day_end = (now // _DAY_SECONDS + 1) * _DAY_SECONDS

    def _write_on(self, writer: _Writer) -> None:
        while not self._stop.wait(self._flush_seconds):
            writer.add(self._take())
        writer.add(self._take())
        writer.close()

    def _take(self) -> Sums:
        with self._lock:
            fresh, self._fresh = self._fresh, {}
        return fresh


def _connected(path: Path, *, write_ahead: bool) -> sqlite3.Connection:
    # isolation_level None: the writer begins and ends transactions, not the driver.
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=8
    )
    try:
        _prepare(connection.execute, write_ahead=write_ahead)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(execute: Callable[[str], sqlite3.Cursor], *, write_ahead: bool) -> None:
    if not write_ahead:
        # Before the first access: only so a file with a write-ahead log can be opened without shared memory.
        execute("PRAGMA locking_mode = EXCLUSIVE")
    version = execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"written by another version of this program (format {version})")
    execute(f"PRAGMA journal_mode = {'WAL' if write_ahead else 'TRUNCATE'}")
    execute("PRAGMA locking_mode = NORMAL")
    execute("PRAGMA synchronous = NORMAL")
    execute(_SCHEMA)
    execute(f"PRAGMA user_version = {_VERSION}")


class _Writer:
    """The connection, opened in the event loop's thread and used only by the writing thread after that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sums: Sums = {}
        self.failures = 0
        self._failing = False
        try:
            self._connection = _connected(path, write_ahead=True)
        except sqlite3.OperationalError:
            # A write-ahead log needs shared memory, which network file systems lack; a rollback journal is slower.
            self._connection = _connected(path, write_ahead=False)

    def month_tokens(self, first_day: str) -> dict[str, int]:
        """Return the tokens of each key since `first_day`."""
        return dict(self._connection.execute(_MONTH, (first_day,)).fetchall())

    def add(self, fresh: Sums) -> None:
        """Write the sums; those that cannot be written are added to the next write."""
        for where, counts in fresh.items():
            before = self._sums.get(where)
            self._sums[where] = (
                [sum(pair) for pair in zip(before, counts, strict=True)] if before is not None else counts
            )
        if not self._sums:
            return
        try:
            self._write()
        except sqlite3.Error as error:
            self.failures += 1
            if not self._failing:
                _log.error(
                    "usage could not be written; it is retained in memory and written later",
                    extra=fields(file=str(self._path), reason=str(error)),
                )
            self._failing = True
            return
        if self._failing:
            _log.info("usage is written again", extra=fields(file=str(self._path)))
        self._failing = False
        self._sums.clear()

    def _write(self) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_ADD, [(*where, *sums) for where, sums in self._sums.items()])
            execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()
