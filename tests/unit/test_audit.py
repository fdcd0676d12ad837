"""The audit log: what is written, and which tampering shows."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.audit import AuditHead, AuditLog, entries, verify
from llama_gguf.errors import KeysError
from support.keys_made import NOW, patient


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def fill(path: Path, count: int = 5) -> AuditLog:
    log = AuditLog(path, clock=lambda: NOW)
    for number in range(count):
        log.append(actor="cli:root", action="keys.update", target=f"key-{number}", details={"n": number, "s": ["é"]})
    return log


def test_a_line_says_who_did_what_when(path: Path) -> None:
    fill(path, 2)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (
        first.items()
        >= {
            "seq": 1,
            "ts": "2026-11-22T12:00:00Z",
            "actor": "cli:root",
            "action": "keys.update",
            "target": "key-0",
            "details": {"n": 0, "s": ["é"]},
            "prev": "0" * 64,
        }.items()
    )
    assert second["prev"] == first["hash"]
    assert [entry.target for entry in entries(path)] == ["key-0", "key-1"]


def test_log_and_head_are_private(path: Path) -> None:
    log = AuditLog(path.parent / "made" / "audit.jsonl")
    log.append(actor="a", action="b")
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in log.path.parent.iterdir()}
    assert modes == {"audit.jsonl": 0o600, "audit.jsonl.head": 0o600, "audit.jsonl.lock": 0o600}


def test_an_untouched_log_is_sound(path: Path) -> None:
    fill(path)
    verdict = verify(path)
    assert verdict.ok
    assert (verdict.entries, verdict.head.seq) == (5, 5)
    assert verify(path, expected=verdict.head).ok
    assert AuditHead.read(path.with_name("audit.jsonl.head").read_text()) == verdict.head


def edit(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b"key-2", b"key-9"), *lines[3:]]


def spaces(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b'","', b'", "', 1), *lines[3:]]


def resealed(lines: list[bytes]) -> list[bytes]:
    """Edit a line and give it a hash that fits."""
    entry = json.loads(lines[2])
    plain = {**entry, "target": "key-9"}
    del plain["hash"]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    sealed = {**plain, "hash": hashlib.sha256(text.encode()).hexdigest()}
    return [*lines[:2], json.dumps(sealed, sort_keys=True, separators=(",", ":")).encode() + b"\n", *lines[3:]]


@pytest.mark.parametrize(
    ("tamper", "line", "problem"),
    [
        (edit, 3, "was changed"),
        (spaces, 3, "was changed"),
        (resealed, 4, "does not follow"),
        (lambda lines: lines[:2] + lines[3:], 3, "does not follow"),
        (lambda lines: lines[1:], 1, "does not follow"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1, "does not follow"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "does not follow"),
        (lambda lines: lines[:-1], 5, "is missing, and with it all up to entry 5"),
        (lambda lines: [], 1, "is missing, and with it all up to entry 5"),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], 5, "is incomplete"),
        (lambda lines: [*lines, b"garbage\n"], 6, "is not JSON"),
        (lambda lines: [*lines, b"[]\n"], 6, "is not an entry"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"seq":5', b'"seq":"5"')], 5, "is not an entry"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"seq":5', b'"seq":true')], 5, "is not an entry"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"target":"key-4"', b'"target":7')], 5, "is not an entry"),
    ],
)
def test_tampering_is_found_at_its_line(
    path: Path, tamper: Callable[[list[bytes]], list[bytes]], line: int, problem: str
) -> None:
    fill(path)
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True))))
    verdict = verify(path)
    assert not verdict.ok
    assert verdict.bad_line == line
    assert verdict.problem.startswith(problem)
    assert verdict.entries == line - 1


@patient
@given(st.data())
def test_any_changed_byte_is_found(path: Path, data: st.DataObject) -> None:
    if not path.exists():
        fill(path)
        path.with_name("good").write_bytes(path.read_bytes())
    good = path.with_name("good").read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
    path.write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
    assert not verify(path).ok


def test_a_log_that_was_rewritten_shows_against_a_noted_head(path: Path) -> None:
    fill(path)
    noted = verify(path).head
    for name in ("audit.jsonl", "audit.jsonl.head"):
        path.with_name(name).unlink()
    log = AuditLog(path)  # another clock, so other hashes
    for _ in range(7):
        log.append(actor="mallory", action="nothing")
    assert verify(path).ok
    verdict = verify(path, expected=noted)
    assert (verdict.bad_line, verdict.problem) == (
        5,
        "is not the entry that was recorded as the head: the log was rewritten",
    )


def test_a_log_without_its_head_file_is_not_vouched_for(path: Path) -> None:
    fill(path)
    path.with_name("audit.jsonl.head").unlink()
    assert verify(path).problem == "audit.jsonl.head is missing, so truncation cannot be detected"
    assert verify(path, expected=AuditHead(5, verify(path).head.hash)).ok
    fill(path, 1)
    assert verify(path).ok


def test_no_line_is_added_where_the_end_was_cut_off(path: Path) -> None:
    """A new line would hide the gap."""
    log = fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in (b"".join(lines[:3]), b""):
        path.write_bytes(kept)
        with pytest.raises(KeysError) as caught:
            log.append(actor="a", action="b")
        assert caught.value.code == "audit-truncated"
        assert path.read_bytes() == kept


def test_no_line_is_added_after_a_damaged_one(path: Path) -> None:
    log = fill(path)
    path.write_bytes(path.read_bytes() + b"garbage\n")
    with pytest.raises(KeysError, match=r"the last line of .* is damaged"):
        log.append(actor="a", action="b")
    path.with_name("audit.jsonl.head").write_text("garbage")
    with pytest.raises(KeysError, match="head is damaged"):
        verify(path)


def test_a_line_that_a_crash_cut_off_is_dropped_and_that_is_recorded(path: Path) -> None:
    log = fill(path)
    path.write_bytes(path.read_bytes() + b'{"action":"keys.up')
    entry = log.append(actor="a", action="b")
    assert entry.seq == 7
    assert verify(path).ok
    recovery = list(entries(path))[-2]
    assert (recovery.action, recovery.details) == ("audit.recover", {"bytes": 18})


def test_the_first_line_too_can_be_cut_off(path: Path) -> None:
    path.write_bytes(b'{"action"')
    AuditLog(path).append(actor="a", action="b")
    assert [entry.action for entry in entries(path)] == ["audit.recover", "b"]
    assert verify(path).ok


def test_a_crash_between_line_and_head_is_no_tampering(path: Path) -> None:
    log = fill(path)
    head = path.with_name("audit.jsonl.head")
    before = head.read_text()
    log.append(actor="a", action="b")
    head.write_text(before)
    assert verify(path).ok
    log.append(actor="a", action="b")
    assert verify(path).entries == 7


def test_a_write_that_fails_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    before = path.read_bytes()

    def full(step: str) -> None:
        if step == "appended":
            raise OSError(28, "full")

    with pytest.raises(KeysError, match=r"cannot append to .*: No space left"):
        AuditLog(path, failpoint=full).append(actor="a", action="b")
    assert path.read_bytes() == before
    assert verify(path).ok


def test_a_link_is_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    fill(link)
    assert verify(link).ok
    assert path.exists()
    assert not link.with_name("link.head").exists()


def test_hostile_text_stays_on_its_line(path: Path) -> None:
    AuditLog(path).append(actor="a\nb", action="\u2028", target="\ud800", details={"x": "\x1b[2J"})
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().isascii()
    assert verify(path).ok


def test_no_log(path: Path) -> None:
    with pytest.raises(KeysError) as caught:
        verify(path)
    assert caught.value.code == "audit-missing"
    with pytest.raises(KeysError, match="Is a directory"):
        verify(path.parent)


@pytest.mark.parametrize("text", ["", "5", "5:abc", "x:" + "0" * 64, "²:" + "0" * 64])
def test_what_is_no_head(text: str) -> None:
    with pytest.raises(ValueError, match="SEQ:HASH"):
        AuditHead.read(text)
