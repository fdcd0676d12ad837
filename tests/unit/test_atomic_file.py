"""Replacing a file: modes, links, locks, and what the operating system can refuse."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_gguf import atomic_file
from llama_gguf.errors import ExitCode, KeysError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_new_file_is_private_whatever_the_old_one_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    atomic_file.replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_parents_are_made_private(tmp_path: Path) -> None:
    atomic_file.make_parents(tmp_path / "a" / "b" / "file")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    atomic_file.make_parents(tmp_path / "a" / "b" / "file")


def test_a_parent_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(KeysError, match="cannot create the directory of"):
        atomic_file.make_parents(tmp_path / "a" / "b" / "file")


def test_json_is_private_and_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    (tmp_path / "file.new").write_text("half of what a crash left, longer than the new content")
    atomic_file.write_private_json({"näme": 1}, path)
    assert json.loads(path.read_bytes()) == {"näme": 1}
    assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    with pytest.raises(TypeError):
        atomic_file.write_private_json({"it cannot say": object()}, path)
    assert json.loads(path.read_bytes()) == {"näme": 1}


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "file.new").write_text("half")
    atomic_file.replace(tmp_path / "file", b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "file.new").symlink_to(victim)
    atomic_file.replace(tmp_path / "file", b"new")
    assert victim.read_text() == "precious"
    (tmp_path / "file.lock").symlink_to(victim)
    with pytest.raises(KeysError) as caught, atomic_file.exclusive(tmp_path / "file"):
        pass
    assert "symbolic link" in caught.value.hint


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(step: str) -> None:
        if step == "written":
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(KeysError) as caught:
        atomic_file.replace(path, b"new", failpoint=full)
    assert caught.value.message == f"cannot replace {path}: No space left on device"
    assert caught.value.hint == "free some space; the old content is unchanged"
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, f"this process runs as uid {os.geteuid()}"),
        (errno.EROFS, "read-only mount, such as a Kubernetes Secret"),
        (errno.EBUSY, "mount its directory instead"),
        (errno.ENOLCK, "this file system does not support locks"),
        (errno.EIO, ""),
    ],
)
def test_errors_say_what_to_do(number: int, hint: str) -> None:
    error = atomic_file.io_error(OSError(number, "x"), "replace", Path("/data/keys.json"))
    assert error.message == f"cannot replace /data/keys.json: {os.strerror(number)}"
    assert hint in error.hint
    assert error.code == "keys-io"


def test_a_file_that_is_mounted_by_itself_cannot_be_replaced(tmp_path: Path) -> None:
    """A real bind mount, in a mount namespace of its own."""
    (tmp_path / "source").write_text("old")
    path = tmp_path / "keys.json"
    path.write_text("")
    code = (
        "import sys, pathlib; from llama_gguf import atomic_file; from llama_gguf.errors import KeysError\n"
        "try: atomic_file.replace(pathlib.Path(sys.argv[1]), b'new')\n"
        "except KeysError as error: print(error.hint)"
    )
    mount = f'mount --bind "{tmp_path}/source" "{path}" && exec "$0" -c "$1" "{path}"'
    done = subprocess.run(
        ["/usr/bin/unshare", "-rm", "/bin/sh", "-c", mount, sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("mount its directory instead")
    assert (tmp_path / "source").read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["keys.json", "source"]


def test_a_lock_that_another_holds_is_waited_for_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (tmp_path / "file.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(KeysError) as caught, atomic_file.exclusive(path, timeout_seconds=0.05):
            pass
    assert caught.value.code == "keys-busy"
    assert caught.value.exit_code is ExitCode.TEMPORARY
    with atomic_file.exclusive(path, timeout_seconds=0):
        assert mode(tmp_path / "file.lock") == 0o644  # it was there; ours would be 0600


def test_the_lock_ends_with_the_block_also_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_file.exclusive(tmp_path / "file"):
        raise ZeroDivisionError
    with atomic_file.exclusive(tmp_path / "file", timeout_seconds=0):
        assert mode(tmp_path / "file.lock") == 0o600


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(KeysError, match="No locks available"), atomic_file.exclusive(tmp_path / "file"):
        pass


@pytest.mark.parametrize(("number", "tolerated"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_directory_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, tolerated: bool
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    if tolerated:
        atomic_file.sync_directory(tmp_path)
    else:
        with pytest.raises(OSError, match="no"):
            atomic_file.sync_directory(tmp_path)


def test_root_gives_files_to_the_owner_of_what_they_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []

    def chown(path: Path, uid: int, gid: int, *, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        given.append((path.name, uid, gid))

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    owner = tmp_path.stat()
    atomic_file.replace(tmp_path / "file", b"x")
    assert given == [("file.new", owner.st_uid, owner.st_gid)]
    given.clear()
    monkeypatch.setattr(os, "geteuid", lambda: 10_001)
    atomic_file.replace(tmp_path / "file", b"x")
    assert given == []
