from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from supervisor.loggers import RotatingFileHandler

from llama_gguf.runtime.follow import FileTail, Follower, wrap_foreign


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def rotate(path: Path, backups: int) -> None:
    """As supervisord does it."""
    for number in range(backups - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(path.name + ".1"))


def test_only_whole_lines_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=3)
    assert tail.lines() == []  # not there yet
    append(path, b"one\ntw")
    assert tail.lines() == [b"one"]
    append(path, b"o\n\nthr")
    assert tail.lines() == [b"two", b""]
    assert tail.lines(last=True) == [b"thr"]
    assert tail.lines(last=True) == []
    tail.close()
    tail.close()


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_no_line_is_lost_in_rotations_between_two_looks(tmp_path: Path, rotations: int) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=3)
    append(path, b"0\n")
    assert tail.lines() == [b"0"]
    expected = []
    for number in range(rotations):
        append(path, b"end of %d\n" % number)
        rotate(path, 3)
        append(path, b"start of %d\n" % (number + 1))
        expected += [b"end of %d" % number, b"start of %d" % (number + 1)]
    assert tail.lines() == expected
    append(path, b"more\n")
    assert tail.lines() == [b"more"]
    tail.close()


def test_what_was_rotated_before_the_first_look_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in (b"0\n", b"1\n", b"2\n"):
        append(path, text)
        rotate(path, 3)
    append(path, b"3\n")
    tail = FileTail(path, backups=3)
    assert tail.lines() == [b"0", b"1", b"2", b"3"]
    tail.close()


def test_between_rename_and_new_file_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=3)
    append(path, b"a\nb")
    assert tail.lines() == [b"a"]
    append(path, b"c\n")
    rotate(path, 3)
    assert tail.lines() == [b"bc"]
    append(path, b"d\n")
    assert tail.lines() == [b"d"]
    tail.close()


def test_a_line_across_two_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=3)
    append(path, b"beg")
    assert tail.lines() == []
    rotate(path, 3)
    append(path, b"in\n")
    assert tail.lines() == [b"begin"]
    tail.close()


def test_rotated_out_of_sight(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=1)
    append(path, b"seen\n")
    assert tail.lines() == [b"seen"]
    for text in (b"lost\n", b"kept\n"):
        rotate(path, 1)
        append(path, text)
    rotate(path, 1)
    append(path, b"new\n")
    assert tail.lines() == [b"kept", b"new"]
    tail.close()


def test_truncated_in_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=0)
    append(path, b"long enough\nhalf")
    assert tail.lines() == [b"long enough"]
    path.write_bytes(b"new\n")
    assert tail.lines() == [b"new"]
    tail.close()


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=0)
    append(path, b"x" * 200_000 + b"\n")
    pieces = tail.lines()
    assert b"".join(pieces) == b"x" * 200_000
    assert all(len(piece) <= 131_072 for piece in pieces)
    tail.close()


def test_against_supervisords_own_handler(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = RotatingFileHandler(str(path), maxBytes=2000, backupCount=4)
    tail = FileTail(path, backups=4)
    generator = random.Random(1)
    found: list[bytes] = []
    number = 0
    for _ in range(400):
        for _ in range(generator.randrange(8)):
            handler.stream.write(b"line %d %s\n" % (number, b"." * generator.randrange(200)))
            handler.flush()
            handler.doRollover()
            number += 1
        found += tail.lines()
    handler.close()
    tail.close()
    assert [int(line.split()[1]) for line in found] == list(range(number))


def test_the_follower_copies_and_renders(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    paths = {"a": tmp_path / "a", "b": tmp_path / "b"}
    tails = {name: FileTail(path, backups=1) for name, path in paths.items()}
    follower = Follower(tails, writer, render=lambda name, line: name.encode() + b": " + line, interval_seconds=0.01)
    follower.start()
    append(paths["a"], b"one\n")
    assert os.read(reader, 100) == b"a: one\n"
    append(paths["b"], b"two\nunfinished")
    assert os.read(reader, 100) == b"b: two\n"
    follower.stop()
    assert os.read(reader, 100) == b"b: unfinished\n"
    os.close(reader)
    os.close(writer)


def test_a_reader_that_left_does_not_matter(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    append(tmp_path / "a", b"one\n")
    follower = Follower({"a": FileTail(tmp_path / "a", backups=1)}, writer, interval_seconds=0.01)
    follower.start()
    follower.stop()
    os.close(writer)


def test_a_reader_that_does_not_read_does_not_hold_us_up(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    append(tmp_path / "a", b"x\n" * 1_000_000)
    follower = Follower({"a": FileTail(tmp_path / "a", backups=1)}, writer, interval_seconds=0.01)
    follower.start()
    follower.stop(timeout_seconds=0.2)
    os.close(reader)  # ends its blocked write
    follower.stop()
    os.close(writer)


@pytest.mark.parametrize(
    ("line", "level", "event"),
    [
        (b'say "\xff" {x', "info", 'say "\ufffd" {x'),
        (b'{"type":"log","time":8,"level":"warn","msg":"srv  x: y\\n"}', "warn", "srv  x: y"),
        (b"{not json", "info", "{not json"),
        (b"{}", "info", "{}"),
        (b"", "info", ""),
    ],
)
def test_foreign_lines_are_wrapped(line: bytes, level: str, event: str) -> None:
    assert json.loads(wrap_foreign("engine", line, clock=lambda: 0.0)) == {
        "ts": "1970-01-01T00:00:00.000Z",
        "level": level,
        "program": "engine",
        "event": event,
    }


def test_our_own_lines_pass_untouched() -> None:
    ours = b'{"ts": "x", "program": "engine", "event": "x"}'
    assert wrap_foreign("engine", ours) is ours
