"""Changes as they really happen: file, audit line and result together."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.audit import AuditHead, AuditLog, entries, verify
from llama_gguf.errors import KeysError
from llama_gguf.keys.admin import KeyAdmin, actor
from llama_gguf.keys.store import KeyStore, load
from support.keys_made import ALICE, BOB, NOW, sha

HOUR = dt.timedelta(hours=1)


class Place:
    """A keys file with its audit log."""

    def __init__(self, root: Path, **given: Any) -> None:
        self.file = root / "keys.json"
        self.log = root / "audit.jsonl"
        self.admin = KeyAdmin(KeyStore(self.file, **given), AuditLog(self.log), actor="cli:test", clock=lambda: NOW)

    def actions(self) -> list[tuple[str, str]]:
        return [(entry.action, entry.target) for entry in entries(self.log)]

    def everything(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.file.parent.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_life_of_a_key_leaves_its_trace_and_no_secret(place: Place) -> None:
    secrets = [place.admin.generate("alice", requests_per_minute=5).secret]
    place.admin.update("alice", requests_per_minute=None, note="n")
    secrets.append(place.admin.rotate("alice", grace=HOUR).secret)
    secrets.append(place.admin.rotate("alice", request_id="r").secret)
    place.admin.replace_secret("alice", ALICE)
    place.admin.remove("alice")
    assert place.actions() == [
        (f"keys.{action}", "alice") for action in ("generate", "update", "rotate", "rotate", "replace", "remove")
    ]
    details = [entry.details for entry in entries(place.log)]
    assert details[0] == {
        "prefix": secrets[0][:8],
        "priority": "normal",
        "requests_per_minute": 5,
        "scopes": ["inference"],
    }
    assert details[1] == {"note": "n", "requests_per_minute": None}
    assert details[2] == {"prefix": secrets[1][:8], "grace_seconds": 3600}
    assert verify(place.log).ok
    stored = place.everything()
    for secret in (*secrets, ALICE):
        assert secret.encode() not in stored
        assert sha(secret).encode() not in place.log.read_bytes()


def test_a_repeated_rotation_writes_nothing(place: Place) -> None:
    place.admin.generate("alice")
    first = place.admin.rotate("alice", request_id="r", grace=HOUR)
    before = place.everything()
    again = place.admin.rotate("alice", request_id="r", grace=HOUR)
    assert (again.secret, again.record) == (first.secret, first.record)
    assert place.everything() == before


def test_a_change_that_changes_nothing_writes_nothing(place: Place) -> None:
    place.admin.generate("alice", note="n")
    before = place.everything()
    place.admin.update("alice", note="n")
    assert place.everything() == before


def test_a_refused_change_is_not_recorded(place: Place) -> None:
    place.admin.generate("alice")
    with pytest.raises(KeysError):
        place.admin.generate("alice")
    assert place.actions() == [("keys.generate", "alice")]


def test_a_change_that_the_disk_refuses_is_recorded_as_failed(tmp_path: Path) -> None:
    def full(step: str) -> None:
        if step == "written":
            raise OSError(errno.ENOSPC, "full")

    place = Place(tmp_path, failpoint=full)
    with pytest.raises(KeysError, match="No space left"):
        place.admin.generate("alice")
    assert place.actions() == [("keys.generate", "alice"), ("keys.failed", "alice")]
    assert not place.file.exists()


def test_without_an_audit_log_no_change(place: Place) -> None:
    place.log.mkdir()
    with pytest.raises(KeysError, match="cannot append to"):
        place.admin.generate("alice")
    assert not place.file.exists()


def test_import_of_an_old_file(place: Place, tmp_path: Path) -> None:
    old = tmp_path / "api_keys.txt"
    old.write_text(f"# ours\nalice:{ALICE}:60:2030-01-01T00:00:00+02:00\nbob:{BOB}\n")
    place.admin.generate("carol")
    result = place.admin.import_file(old)
    assert result.added == ("alice", "bob")
    alice = load(place.file).keys.find("alice")
    assert alice is not None
    assert (alice.digest, alice.requests_per_minute) == (sha(ALICE), 60)
    assert alice.expires == dt.datetime(2029, 12, 31, 22, tzinfo=dt.UTC)
    assert place.actions()[-1] == ("keys.import", str(old))
    assert place.admin.import_file(old).skipped == ("alice", "bob")
    assert len(place.actions()) == 2
    assert ALICE in old.read_text()  # somebody else's file is left alone


def test_import_turns_an_old_keys_file_into_a_new_one(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.file.write_text(f"alice:{ALICE}\n")
    place.file.chmod(0o600)
    with pytest.raises(KeysError, match="old format"):
        place.admin.generate("carol")
    assert place.admin.import_file(place.file).added == ("alice",)
    assert ALICE.encode() not in place.everything()
    assert not load(place.file).keys.plaintext
    assert place.admin.import_file(place.file).skipped == ("alice",)
    assert place.admin.generate("carol").secret


def test_import_into_an_old_keys_file_converts_it_too(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for path, line in ((place.file, f"alice:{ALICE}\n"), (tmp_path / "more.txt", f"bob:{BOB}\n")):
        path.write_text(line)
        path.chmod(0o600)
    place.admin.import_file(tmp_path / "more.txt")
    keys = load(place.file).keys
    assert [key.id for key in keys.records] == ["alice", "bob"]
    assert not keys.plaintext


def test_the_actor_is_the_program_and_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    assert actor("cli") == f"cli:{pwd.getpwuid(os.geteuid()).pw_name}"
    monkeypatch.setattr(os, "geteuid", lambda: 987_654)
    assert actor("cli") == "cli:uid=987654"


def cut(log: Path, lines: int) -> None:
    """Cut the log and its head file to an earlier pair that fits."""
    kept = log.read_bytes().splitlines(keepends=True)[:lines]
    head = log.with_name(log.name + ".head")
    if not kept:
        log.unlink()
        head.unlink()
        return
    entry = json.loads(kept[-1])
    log.write_bytes(b"".join(kept))
    head.write_text(f"{entry['seq']}:{entry['hash']}\n")


def known_of(keys: Path) -> AuditHead:
    return AuditHead.read(load(keys).keys.audit_head)


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_a_log_that_was_cut_with_its_head_file_shows_against_the_keys_file(tmp_path: Path, lines: int) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "audit.jsonl"
    admin = KeyAdmin(KeyStore(keys), AuditLog(log), actor="t")
    for name in ("a", "b", "c"):
        admin.generate(name)
    assert verify(log, known=known_of(keys)) == verify(log)
    assert known_of(keys) == verify(log).head
    cut(log, lines)
    told = verify(log, known=known_of(keys))
    assert (told.entries, told.bad_line) == (lines, lines + 1)
    assert told.problem == "is missing, and with it all up to entry 3, which the keys file records"
    admin.remove("a")  # keys can still be changed, and the gap stays on record
    admin.remove("b")
    told = verify(log, known=known_of(keys))
    assert (told.entries, told.bad_line) == (lines, lines + 1)
    assert told.problem.startswith("records a truncated or replaced log: the keys file named entry 3:")
    assert told.problem.endswith(f", and {lines} were left")


def test_a_log_that_was_replaced_shows_against_the_keys_file(tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "audit.jsonl"
    KeyAdmin(KeyStore(keys), AuditLog(log), actor="t").generate("a")
    cut(log, 0)
    for _ in range(3):
        AuditLog(log).append(actor="mallory", action="nothing")
    assert verify(log).ok
    told = verify(log, known=known_of(keys))
    assert (told.bad_line, told.ok) == (1, False)
    assert "the log was rewritten" in told.problem


def test_a_crash_between_log_and_keys_file_is_no_tampering(tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "audit.jsonl"
    KeyAdmin(KeyStore(keys), AuditLog(log), actor="t").generate("a")

    def crash_once_logged(_step: str) -> None:
        if log.read_bytes().count(b"\n") > 1:
            raise KeyboardInterrupt

    crashing = KeyAdmin(KeyStore(keys, failpoint=crash_once_logged), AuditLog(log), actor="t")
    with pytest.raises(KeyboardInterrupt):
        crashing.generate("b")
    assert verify(log, known=known_of(keys)).ok
    assert (verify(log).entries, known_of(keys).seq) == (2, 1)
    KeyAdmin(KeyStore(keys), AuditLog(log), actor="t").generate("b")
    assert verify(log, known=known_of(keys)).ok


def test_admin_calls_after_the_last_change_need_no_new_keys_file(tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "audit.jsonl"
    KeyAdmin(KeyStore(keys), AuditLog(log), actor="t").generate("a")
    before = keys.read_bytes()
    AuditLog(log).append(actor="a", action="engine.get", target="/slots")
    assert keys.read_bytes() == before
    assert verify(log, known=known_of(keys)).ok
