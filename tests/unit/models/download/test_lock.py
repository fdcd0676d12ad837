"""The download lock: one at a time, freed by the kernel, and no obstacle where a file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_gguf.models.download.lock import hold, hold_now


def test_a_second_holder_waits_and_says_so_once(tmp_path: Path) -> None:
    path, waits, naps = tmp_path / "l", [], []
    holder = os.open(path, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            os.close(holder)

    with hold(path, on_wait=lambda: waits.append(1), sleep=sleep, poll_seconds=0.25):
        assert waits == [1]
        assert naps == [0.25] * 3
    assert path.exists()


def test_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l"
    with hold_now(path) as first:
        assert first
        with hold_now(path) as second:
            assert not second
        with hold_now(path) as third:  # the second has not taken it away
            assert not third
    with hold_now(path) as after:
        assert after

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold_now(path) as without_locks:
        assert without_locks


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "l"
    code = (
        "import fcntl, os, sys, time; f = os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT); fcntl.flock(f, fcntl.LOCK_EX)"
        "; print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    with hold(path, on_wait=lambda: pytest.fail("nobody holds it")):
        pass


def test_no_locks_on_this_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(tmp_path / "l", on_wait=lambda: None):
        pass
    assert "the file system has no locks" in caplog.text


def test_other_errors_are_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken"), hold(tmp_path / "l", on_wait=lambda: None):
        pass
