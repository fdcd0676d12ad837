"""The partial file: its sidecar never lists bytes that are not on disk, and only a complete file gets the name."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama_gguf.models.download.partial_file import PartialFile

KB = 1024


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def begun(target: Path, size: int | None = 10 * KB) -> PartialFile:
    part = PartialFile(target)
    part.restart('"v1"', size)
    return part


def reopened(target: Path) -> PartialFile:
    part = PartialFile(target)
    part.resume()
    part.close()
    return part


def test_what_was_saved_is_there_again(target: Path) -> None:
    part = begun(target)
    part.write([b"a" * KB, b"b" * KB], 2 * KB)
    part.save(((2 * KB, 4 * KB),))
    part.write([b"c" * KB], 0)  # not saved: as if killed before
    part.close()
    again = reopened(target)
    assert (again.validator, again.size, again.done) == ('"v1"', 10 * KB, ((2 * KB, 4 * KB),))
    assert part.path.stat().st_size == 10 * KB


def test_many_small_chunks_land_in_order(target: Path) -> None:
    part = begun(target)
    chunks = [bytes([number % 251]) * 3 for number in range(2000)]  # more than one system call takes
    part.write(chunks, 7)
    assert part.path.read_bytes()[7:6007] == b"".join(chunks)
    part.close()


def test_finished(target: Path) -> None:
    part = begun(target, 4)
    part.write([b"GGUF"], 0)
    part.finish()
    assert target.read_bytes() == b"GGUF"
    assert list(target.parent.iterdir()) == [target]


def test_starting_over_makes_another_file(target: Path) -> None:
    part = begun(target)
    other = os.open(part.path, os.O_RDWR)  # another process, where there are no locks
    os.pwrite(other, b"x", 0)
    part.restart('"v2"', 5)
    os.pwrite(other, b"y", 0)
    assert part.path.read_bytes() == bytes(5)
    os.close(other)
    part.path.rename(part.path.with_name("old"))
    part.path.write_bytes(b"z")
    with pytest.raises(OSError, match="another process"):
        part.finish()
    assert not target.exists()
    part.close()


@pytest.mark.parametrize(
    "done",
    [[[0, 5], [4, 6]], [[3, 2]], [[0, 99]], [[0, 1, 2]], [["0", "1"]], [[0, True]], [[-1, 3]], [7], [[4, 6], [0, 2]]],
    ids=str,
)
def test_a_sidecar_that_does_not_fit(target: Path, done: object) -> None:
    target.with_name("m.gguf.part").write_bytes(bytes(10))
    target.with_name("m.gguf.part.json").write_text(json.dumps({"version": "x", "size": 10, "done": done}))
    assert reopened(target).done == ()
    assert list(target.parent.iterdir()) == []


def test_a_sidecar_truncated_at_any_byte_is_ignored(target: Path) -> None:
    part = begun(target)
    part.save(((0, 5 * KB),))
    part.close()
    sidecar = target.with_name("m.gguf.part.json").read_bytes()
    for length in range(len(sidecar)):
        part.path.write_bytes(bytes(10 * KB))
        target.with_name("m.gguf.part.json").write_bytes(sidecar[:length])
        assert reopened(target).done == ()


def test_a_file_shorter_than_its_sidecar_says(target: Path) -> None:
    part = begun(target)
    part.save(((0, 5 * KB),))
    part.close()
    os.truncate(part.path, 4 * KB)
    assert reopened(target).done == ()


def test_an_older_program_does_not_take_the_length_for_the_progress(target: Path) -> None:
    begun(target).close()
    assert "validator" not in json.loads(target.with_name("m.gguf.part.json").read_text())


def test_the_space_is_reserved_or_else_the_length_is_set(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(target, 1_000_000).close()
    assert target.with_name("m.gguf.part").stat().st_blocks * 512 >= 1_000_000

    def failing(number: int) -> None:
        def fallocate(*_: object) -> int:
            ctypes.set_errno(number)
            return -1

        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(fallocate=fallocate))

    failing(errno.EOPNOTSUPP)
    begun(target, 1_000_000).close()
    assert target.with_name("m.gguf.part").stat().st_size == 1_000_000
    assert target.with_name("m.gguf.part").stat().st_blocks == 0
    failing(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        begun(target, 1_000_000)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())  # where libc has no such function
    begun(target, 1_000_000).close()
    assert target.with_name("m.gguf.part").stat().st_size == 1_000_000


def test_space_that_is_reserved_already_is_not_wanted_again(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = begun(target, 1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    part.allocate('"v1"', 1_000_000)
    part.close()


def test_a_closed_part_is_not_touched(target: Path) -> None:
    with pytest.raises(ValueError, match="not open"):
        PartialFile(target).write([b"x"], 0)
