"""Usage over restarts, crashes and disks that cannot be written."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_gguf.gateway.telemetry.usage_store import UsageError, UsageStore, Used, read

MARCH = dt.datetime(2026, 3, 31, 12, 0, tzinfo=dt.UTC).timestamp()
APRIL = dt.datetime(2026, 4, 1, 0, 0, tzinfo=dt.UTC).timestamp()


class Clock:
    def __init__(self, now: float = MARCH) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def opened(path: Path | None, clock: Clock | None = None, flush_seconds: float = 60.0) -> UsageStore:
    store = UsageStore(path, clock=clock or Clock(), flush_seconds=flush_seconds)
    store.open()
    return store


def record(store: UsageStore, key_id: str, model: str = "m", *, error: bool = False) -> None:
    store.record(key_id, model, requests=1, errors=error, prompt=100, cached=40, completion=10)


def test_sums_by_key_model_and_day(tmp_path: Path) -> None:
    path = tmp_path / "data" / "usage.sqlite3"
    clock = Clock()
    store = opened(path, clock)
    record(store, "alice", "small")
    record(store, "alice", "large", error=True)
    clock.now = APRIL
    record(store, "alice", "small")
    record(store, "bob", "small")
    store.close()
    since = "2026-01-01"
    assert read(path, by="key", since=since) == [
        Used("alice", 3, 1, 300, 120, 30),
        Used("bob", 1, 0, 100, 40, 10),
    ]
    assert read(path, by="model", since=since) == [
        Used("small", 3, 0, 300, 120, 30),
        Used("large", 1, 1, 100, 40, 10),
    ]
    assert read(path, by="day", since=since) == [
        Used("2026-03-31", 2, 1, 200, 80, 20),
        Used("2026-04-01", 2, 0, 200, 80, 20),
    ]
    assert read(path, by="key", since="2026-04-01") == [
        Used("alice", 1, 0, 100, 40, 10),
        Used("bob", 1, 0, 100, 40, 10),
    ]


def test_it_adds_to_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    for _ in range(3):
        store = opened(path)
        record(store, "alice")
        store.close()
    assert read(path, by="key", since="") == [Used("alice", 3, 0, 300, 120, 30)]


def test_the_month_goes_on_over_restarts_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    clock = Clock()
    store = opened(path, clock)
    record(store, "alice")
    assert store.month_tokens("alice") == 110
    store.close()
    store = opened(path, clock)
    assert store.month_tokens("alice") == 110
    assert store.month_tokens("bob") == 0
    record(store, "alice")
    assert store.month_tokens("alice") == 220
    clock.now = APRIL
    assert store.month_tokens("alice") == 0
    record(store, "alice")
    assert store.month_tokens("alice") == 110
    store.close()


def test_without_a_file_it_counts_in_memory() -> None:
    store = opened(None)
    record(store, "alice")
    assert store.month_tokens("alice") == 110
    assert store.write_failures == 0
    store.close()


def test_a_directory_that_cannot_be_made_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = opened(tmp_path / "file" / "usage.sqlite3")
    assert "in memory only" in caplog.text
    record(store, "alice")
    assert store.month_tokens("alice") == 110
    store.close()


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
def test_a_read_only_directory_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = (
        "import sys, logging; logging.basicConfig(); from pathlib import Path;"
        "from llama_gguf.gateway.telemetry.usage_store import UsageStore;"
        "s = UsageStore(Path(sys.argv[1])); s.open();"
        "s.record('a', 'm', prompt=1, cached=0, completion=1, errors=0, requests=1);"
        "print(s.month_tokens('a')); s.close()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "usage.sqlite3")]
    if os.geteuid() == 0:
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tmp_path.chmod(0o755)
    assert done.stdout.split() == ["2"]
    assert not (tmp_path / "usage.sqlite3").exists()
    assert "in memory only" in done.stderr


@pytest.mark.parametrize("content", [b"this is no database, " * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_broken_file_is_a_warning_and_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "usage.sqlite3"
    path.write_bytes(content)
    store = opened(path)
    record(store, "alice")
    store.close()
    assert "cannot be used" in caplog.text
    assert path.read_bytes() == content
    with pytest.raises(UsageError, match="cannot be read"):
        read(path, by="key", since="")


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "usage.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    content = path.read_bytes()
    store = opened(path)
    record(store, "alice")
    store.close()
    assert path.read_bytes() == content
    assert any("format 7" in str(entry.__dict__) for entry in caplog.records)


def test_what_cannot_be_written_is_kept_and_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "usage.sqlite3"
    store = opened(path, flush_seconds=0.02)
    assert store._writer is not None
    store._writer._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    record(store, "alice")
    _until(lambda: store.write_failures > 2)
    record(store, "alice")
    other.execute("ROLLBACK")
    other.close()
    _until(lambda: read(path, by="key", since="") == [Used("alice", 2, 0, 200, 80, 20)])
    store.close()
    said = [entry.message for entry in caplog.records]
    assert said.count("usage could not be written; it is retained in memory and written later") == 1
    assert said.count("usage is written again") == 1


@pytest.mark.slow
def test_a_killed_process_loses_only_the_last_moments(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    code = (
        "import sys, time; from pathlib import Path; from llama_gguf.gateway.telemetry.usage_store import UsageStore;"
        "s = UsageStore(Path(sys.argv[1])); s.open()\n"
        "for n in range(10**9):\n"
        "    s.record('alice', 'm', prompt=1, cached=0, completion=0, errors=0, requests=1)\n"
        "    if n % 100 == 99: print(n + 1, time.time(), flush=True); time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    time.sleep(2.5)
    process.send_signal(signal.SIGKILL)
    reports = [line.split() for line in process.stdout.read().splitlines() if line.count(" ") == 1]
    process.wait()
    process.stdout.close()
    (used,) = read(path, by="key", since="")
    killed_at = float(reports[-1][1])
    two_seconds_before = max(int(number) for number, when in reports if float(when) < killed_at - 2.0)
    assert two_seconds_before <= used.requests <= int(reports[-1][0]) + 100
    store = UsageStore(path)
    store.open()  # and the file is sound
    assert store.month_tokens("alice") == used.prompt_tokens
    store.close()


def test_no_file_means_no_usage(tmp_path: Path) -> None:
    assert read(tmp_path / "none.sqlite3", by="key", since="") == []


def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
