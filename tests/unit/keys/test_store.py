"""The keys file on disk."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.errors import KeysError
from llama_gguf.keys.file_format import render
from llama_gguf.keys.record import KeyFile
from llama_gguf.keys.store import KeyStore, load
from support.keys_made import ALICE, BOB, record

KEYS = KeyFile((record(),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def put(path: Path, keys: KeyFile = KEYS) -> None:
    path.write_text(render(keys))
    path.chmod(0o600)


def code(path: Path) -> str:
    with pytest.raises(KeysError) as caught:
        load(path)
    return caught.value.code


def test_a_file_is_made_private_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "keys.json"
    with KeyStore(path).locked() as session:
        assert session.keys == KeyFile()
        session.write(KEYS)
        assert session.keys == KEYS
    assert load(path).keys == KEYS
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == {"keys.json": 0o600, "keys.json.lock": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_private_file_with_digests_has_no_warnings(path: Path) -> None:
    put(path)
    assert load(path).warnings == ()
    assert not load(path).blank


def test_others_who_may_read_are_a_warning(path: Path) -> None:
    put(path)
    path.chmod(0o640)
    (warning,) = load(path).warnings
    assert (warning.code, warning.severity) == ("keys-readable", "warning")
    assert warning.message == f"{path} is accessible to other users (mode 640)"
    assert warning.hint == f"chmod 600 {path}; if the file system has no modes, move the file to one that has"


def test_a_file_that_anybody_may_write_is_refused(path: Path) -> None:
    put(path)
    path.chmod(0o602)
    assert code(path) == "keys-writable"


def test_plaintext_is_a_warning_that_quotes_no_key(path: Path) -> None:
    path.write_text(f"alice:{ALICE}\n")
    path.chmod(0o600)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    loaded = load(path)
    (warning,) = loaded.warnings
    assert warning.code == "keys-plaintext"
    assert ALICE not in warning.message + warning.hint
    assert loaded.keys.records[0].created.timestamp() == 1_700_000_000


def test_what_cannot_be_a_keys_file(path: Path, tmp_path: Path) -> None:
    assert code(path) == "keys-missing"
    assert code(tmp_path) == "keys-io"
    os.mkfifo(path, 0o600)
    assert code(path) == "keys-io"  # and does not hang
    path.unlink()
    path.write_bytes(b'{"version": 1,\n"keys": ["\xff"]}')
    path.chmod(0o600)
    with pytest.raises(KeysError) as caught:
        load(path)
    assert caught.value.message == f"{path}:2: not UTF-8 text"
    assert code(path / "below") == "keys-io"


def test_a_file_beyond_all_measure_is_refused(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, 64 * 1024 * 1024 + 1)
    assert code(path) == "keys-io"


def test_a_plaintext_file_is_changed_only_to_convert_it(path: Path) -> None:
    path.write_text(f"# ours\nalice:{ALICE}\n")
    path.chmod(0o600)
    with pytest.raises(KeysError) as caught, KeyStore(path).locked():
        pass
    assert caught.value.code == "keys-plaintext"
    assert "keys import" in caught.value.hint
    assert path.read_text() == f"# ours\nalice:{ALICE}\n"
    with KeyStore(path).locked(convert=True) as session:
        session.write(session.keys)
    assert ALICE not in path.read_text()
    assert not load(path).keys.plaintext


def test_a_broken_file_is_never_overwritten(path: Path) -> None:
    path.write_text("{broken")
    path.chmod(0o600)
    with pytest.raises(KeysError, match="not JSON"), KeyStore(path).locked():
        pass
    assert path.read_text() == "{broken"


def test_nothing_is_written_that_could_not_be_read_back(path: Path) -> None:
    put(path)
    before = path.read_bytes()
    stranger = record("bob", BOB)
    for wrong in (
        record("bob"),  # alice's secret
        replace(stranger, requests_per_minute=0),
        replace(stranger, note="\ud800"),
        replace(stranger, models=["a"]),  # type: ignore[arg-type]
    ):
        with pytest.raises(KeysError), KeyStore(path).locked() as session:
            session.write(KeyFile((*session.keys.records, wrong)))
        assert path.read_bytes() == before


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    real = tmp_path / "volume" / "keys.json"
    real.parent.mkdir()
    put(real)
    link = tmp_path / "keys.json"
    link.symlink_to(real)
    with KeyStore(link).locked() as session:
        session.write(KeyFile())
    assert link.is_symlink()
    assert load(real).keys == KeyFile()
    assert (real.parent / "keys.json.lock").exists()  # one lock, whichever way one comes


def test_a_link_that_moves_while_we_wait_is_followed_anew(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path / name)
    link = tmp_path / "keys.json"
    link.symlink_to("one")
    moved: list[str] = []

    def at(step: str) -> None:
        if step == "locked" and not moved:
            moved.append(step)
            link.unlink()
            link.symlink_to("two")

    with KeyStore(link, failpoint=at).locked() as session:
        session.write(KeyFile())
    assert load(tmp_path / "one").keys == KEYS
    assert load(tmp_path / "two").keys == KeyFile()


def test_the_pepper_is_made_once_and_kept_private(path: Path) -> None:
    with KeyStore(path).locked() as session:
        pepper = session.pepper()
        assert session.pepper() == pepper
    file = path.with_name("keys.json.pepper")
    assert len(pepper) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with KeyStore(path).locked() as session:
        assert session.pepper() == pepper
        file.chmod(0o644)
        with pytest.raises(KeysError, match=r"closed to other users \(mode 644\)"):
            session.pepper()
        file.chmod(0o600)
        file.write_bytes(b"short")
        with pytest.raises(KeysError, match="must have 32 bytes"):
            session.pepper()
        file.unlink()
        file.mkdir()
        with pytest.raises(KeysError, match="cannot read"):
            session.pepper()
