from __future__ import annotations

import io
import json
import os
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from supervisor.loggers import RotatingFileHandler

from llama_gguf.runtime.log_follower import FileTail, Follower, Gap, to_json_line

LINE = re.compile(rb"<(\d+)>\n")


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


def test_rotated_out_of_sight_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=1)
    append(path, b"seen\n")
    assert tail.lines() == [b"seen"]
    for text in (b"lost\n", b"kept\n"):
        rotate(path, 1)
        append(path, text)
    rotate(path, 1)
    append(path, b"new\n")
    assert tail.lines() == [Gap(0), b"kept", b"new"]  # nothing tells how many files came and went
    assert tail.lines() == []
    tail.close()


@pytest.mark.parametrize("refilled", [b"new\n", b"new, and as long as\n", b"new, and much longer than it was\n"])
def test_truncated_in_place(tmp_path: Path, refilled: bytes) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=0, max_bytes=100)
    append(path, b"long enough\nhalf")
    assert tail.lines() == [b"long enough"]
    path.write_bytes(refilled)
    assert tail.lines() == [b"half", Gap(100 - 16), refilled.strip()]
    tail.close()


def test_a_file_removed_by_others_is_read_to_its_end_and_nothing_is_doubled(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=3)
    append(path, b"old\n")
    rotate(path, 3)
    append(path, b"seen\n")
    assert tail.lines() == [b"old", b"seen"]
    append(path, b"unseen\n")
    path.unlink()
    assert tail.lines() == [b"unseen"]
    append(path, b"new\n")
    assert tail.lines() == [b"new"]
    tail.close()


Writer = Iterator[None]


class Disk:
    """supervisord's rotation a system call at a time, and what of the numbered lines is still on disk."""

    def __init__(self, path: Path, backups: int) -> None:
        self.path = path
        self.backups = backups
        self.written = 0
        self._steps = self._turns()
        self.want_rotation = False

    def step(self) -> None:
        """Make one system call."""
        next(self._steps)

    def settle(self) -> None:
        """Finish what was begun, so that the last line is whole."""
        self.want_rotation = False
        before = self.written
        while self.written < before + 2:
            self.step()

    def numbers(self) -> set[int]:
        """Return the lines that are whole in the files there are, read across their borders."""
        names = [self.path.with_name(f"{self.path.name}.{number}") for number in range(self.backups, 0, -1)]
        text = b"".join(name.read_bytes() for name in [*names, self.path] if name.exists())
        return {int(found) for found in LINE.findall(text)}

    def _turns(self) -> Writer:
        while True:
            if self.want_rotation:
                self.want_rotation = False
                yield from self._rotate()
            append(self.path, b"<%d" % self.written)
            yield
            if self.want_rotation:  # it rotates wherever its last read of the pipe ended
                self.want_rotation = False
                yield from self._rotate()
            append(self.path, b">\n")
            self.written += 1
            yield

    def _rotate(self) -> Writer:
        for number in range(self.backups - 1, -1, -1):
            source = self.path.with_name(f"{self.path.name}.{number}") if number else self.path
            target = self.path.with_name(f"{self.path.name}.{number + 1}")
            if source.exists():
                if target.exists():
                    target.unlink()
                    yield
                source.rename(target)
                yield
        self.path.write_bytes(b"")
        yield


class FollowingARotation(RuleBasedStateMachine):
    """Whatever happens when: in order, nothing twice, nothing lost that is on disk, and a gap wherever lines are."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.pending: list[tuple[int, bool]] = []
        self.got: list[bytes | Gap] = []

    @initialize(backups=st.integers(0, 3))
    def begin(self, backups: int) -> None:
        path = Path(self._folder.name) / "log"
        self.disk = Disk(path, backups)
        self.tail = FileTail(path, backups=backups, open_file=self._open)

    def _open(self, path: Path) -> io.FileIO:
        """Let the writer work first, between two steps of a look."""
        if self.pending:
            steps, rotate_first = self.pending.pop()
            self.disk.want_rotation |= rotate_first
            for _ in range(steps):
                self.disk.step()
        return io.FileIO(path)

    @rule(steps=st.integers(1, 12))
    def write(self, steps: int) -> None:
        for _ in range(steps):
            self.disk.step()

    @rule(steps=st.integers(0, 12))
    def rotate(self, steps: int) -> None:
        self.disk.want_rotation = True
        self.write(max(1, steps))

    @rule(pending=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=8))
    def look(self, pending: list[tuple[int, bool]]) -> None:
        self.pending = pending
        self.got += self.tail.lines()
        self.pending = []
        self._check(self.disk.numbers())

    @rule()
    def look_when_all_is_quiet(self) -> None:
        self.disk.settle()
        self.got += self.tail.lines()
        numbers = self._check(self.disk.numbers())
        assert numbers[-1] == self.disk.written - 1

    def _check(self, on_disk: set[int]) -> list[int]:
        numbers: list[int] = []
        gap = False
        for line in self.got:
            if isinstance(line, Gap):
                gap = True
                continue
            if not (match := LINE.fullmatch(line + b"\n")):
                continue  # one end of a line whose other end was deleted
            number = int(match[1])
            expected = numbers[-1] + 1 if numbers else 0
            assert number == expected or (gap and number > expected) or (not numbers and not on_disk & {0}), self.got
            assert not on_disk & set(range(expected, number)), self.got
            gap = False
            numbers.append(number)
        return numbers

    def teardown(self) -> None:
        self.tail.close()
        self._folder.cleanup()


FollowingARotation.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_following_a_rotation = FollowingARotation.TestCase


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = FileTail(path, backups=0)
    append(path, b"x" * 200_000 + b"\n")
    pieces = tail.lines()
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == b"x" * 200_000
    assert all(isinstance(piece, bytes) and len(piece) <= 131_072 for piece in pieces)
    tail.close()


def test_against_supervisords_own_handler(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = RotatingFileHandler(str(path), maxBytes=2000, backupCount=4)
    tail = FileTail(path, backups=4)
    generator = random.Random(1)
    found: list[bytes | Gap] = []
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
    assert [int(line.split()[1]) for line in found if isinstance(line, bytes)] == list(range(number))
    assert len(found) == number


def read_line(descriptor: int) -> bytes:
    """Read up to the end of a line, however many pieces it comes in."""
    found = b""
    while not found.endswith(b"\n"):
        found += os.read(descriptor, 1)
    return found


def test_the_follower_copies_and_renders(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    paths = {"a": tmp_path / "a", "b": tmp_path / "b"}
    tails = {name: FileTail(path, backups=1) for name, path in paths.items()}
    follower = Follower(tails, writer, log_format="json", interval_seconds=0.01)
    follower.start()
    append(paths["a"], b"one\n")
    assert b'"program": "a", "event": "one"' in read_line(reader)
    append(paths["b"], b"two\nunfinished")
    assert b'"program": "b", "event": "two"' in read_line(reader)
    follower.stop()
    assert b'"program": "b", "event": "unfinished"' in read_line(reader)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("form", ["text", "json"])
def test_lost_lines_are_said_in_the_stream(tmp_path: Path, form: Literal["text", "json"]) -> None:
    reader, writer = os.pipe()
    path = tmp_path / "a"
    tail = FileTail(path, backups=0, max_bytes=100)
    append(path, b"seen\n")
    assert tail.lines() == [b"seen"]
    path.write_bytes(b"x\n")
    follower = Follower({"a": tail}, writer, log_format=form)
    follower.start()
    said, line = read_line(reader).decode(), read_line(reader).decode()
    follower.stop()
    if form == "json":
        found = json.loads(said)
        assert (found["level"], found["program"], found["lost_bytes_at_least"]) == ("warning", "a", 95)
    else:
        assert re.fullmatch(r"\S+ \| WARNING \| a \| log lines were deleted .* \| lost_bytes_at_least=95\n", said)
    assert "x" in line
    os.close(reader)
    os.close(writer)


def test_a_log_that_cannot_be_read_is_said_once_and_tried_again(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    (tmp_path / "a").mkdir()
    append(tmp_path / "b", b"fine\n")
    tails = {name: FileTail(tmp_path / name, backups=1) for name in ("a", "b")}
    follower = Follower(tails, writer, interval_seconds=0.001)
    follower.start()
    assert b"log file cannot be read; trying again | error=" in read_line(reader)
    assert read_line(reader) == b"fine\n"
    (tmp_path / "a").rename(tmp_path / "a-folder")
    append(tmp_path / "a", b"and now\n")
    assert read_line(reader) == b"and now\n"
    follower.stop()
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
    assert json.loads(to_json_line("engine", line, clock=lambda: 0.0)) == {
        "ts": "1970-01-01T00:00:00.000Z",
        "level": level,
        "program": "engine",
        "event": event,
    }


def test_our_own_lines_pass_untouched() -> None:
    ours = b'{"ts": "x", "program": "engine", "event": "x"}'
    assert to_json_line("engine", ours) is ours


def test_a_thread_that_is_left_behind_writes_to_nobody_else(tmp_path: Path) -> None:
    """Its reader is stuck, so `stop` gives up; the number of the descriptor it was given then means another file."""
    text = b"x\n" * 200_000  # more than a pipe holds, for two writes
    for name in "ab":
        (tmp_path / name).write_bytes(text)
    reader, writer = os.pipe()
    tails = {name: FileTail(tmp_path / name, backups=1) for name in "ab"}
    follower = Follower(tails, writer, interval_seconds=0.01)
    follower.start()
    os.read(reader, 1)  # it has begun
    follower.stop(0.1)
    os.close(writer)
    other_reader, other_writer = os.pipe()
    assert writer in (other_reader, other_writer)
    with os.fdopen(reader, "rb") as rest:
        assert rest.read() == text[1:] + text
    os.set_blocking(other_reader, False)
    with pytest.raises(BlockingIOError):
        os.read(other_reader, 1)
    os.close(other_reader)
    os.close(other_writer)
