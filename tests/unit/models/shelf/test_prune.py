"""What is old or unfinished, and removing it. The whole command: tests/unit/cli/commands/test_models.py."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.shelf.last_use import LastUse
from llama_gguf.models.shelf.prune import prunable, remove
from llama_gguf.models.shelf.scan import Stored, scan
from llama_gguf.models.shelf.use import Uses

COMMITS = ["a" * 40, "b" * 40, "c" * 40]
NOTHING = Uses({}, {}, {})


def versions(root: Path, *, current: str = "") -> list[Stored]:
    """Three versions of one file, the first is the newest; and another file that only the last has."""
    repository = root / "models--a--b"
    (repository / "blobs").mkdir(parents=True)
    for age, commit in enumerate(COMMITS):
        path = repository / "snapshots" / commit / "m.gguf"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"GGUF")
        os.utime(path, (2_000_000_000 - age, 2_000_000_000 - age))
    (repository / "snapshots" / COMMITS[2] / "only.gguf").write_bytes(b"GGUF")
    if current:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(current)
    return list(scan(root / "none", root))


def names(found: list[Stored]) -> list[tuple[str, str]]:
    return [(one.path.name, one.version[0]) for one in found]


def test_without_a_branch_the_newest_version_stays(tmp_path: Path) -> None:
    assert names(prunable(versions(tmp_path), NOTHING)) == [("m.gguf", "b"), ("m.gguf", "c")]


def test_the_version_of_a_branch_stays(tmp_path: Path) -> None:
    assert names(prunable(versions(tmp_path, current=COMMITS[1]), NOTHING)) == [("m.gguf", "a"), ("m.gguf", "c")]


def test_the_version_that_a_model_uses_stays_and_makes_others_old(tmp_path: Path) -> None:
    stored = versions(tmp_path)
    used = Uses({os.path.realpath(stored[2].path): ("models.x",)}, {}, {})
    assert names(prunable(stored, used)) == [("m.gguf", "a"), ("m.gguf", "b")]


def test_removing(tmp_path: Path) -> None:
    uses = LastUse(tmp_path)
    stored = versions(tmp_path)
    old = stored[2]
    uses.record(old.path)
    assert remove(old, uses)
    assert uses.seconds(old.path) is None
    assert not old.path.exists()
    assert old.path.with_name("only.gguf").exists()  # its version has another file
    assert remove(stored[1], uses)
    assert not stored[1].path.parent.exists()
    assert stored[0].path.exists()


def test_what_a_download_holds_stays(tmp_path: Path) -> None:
    stored = versions(tmp_path)[1]
    with stored.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not remove(stored, LastUse(tmp_path))
    assert stored.path.exists()


def test_what_cannot_be_removed_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    stored = versions(tmp_path)[1]
    with pytest.raises(ModelError, match="cannot be") as caught:
        remove(replace(stored, owned=(tmp_path,)), LastUse(tmp_path))  # a directory
    assert caught.value.hint
