"""What is on disk: every layout that downloads leave, also where a volume has no links; and what is none of ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.shelf.scan import published_sha256, scan

NEW, OLD = "a" * 40, "b" * 40
DIGESTS = ["1" * 64, "2" * 64]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "models" / "huggingface"


def put(cache: Path, commit: str, name: str, body: bytes, *, how: str = "symlink", ref: str = "") -> Path:
    repository = cache / "models--a--b-GGUF"
    path, blob = repository / "snapshots" / commit / name, repository / "blobs" / (body.hex()[-2:] * 32)
    for directory in (path.parent, blob.parent, (repository / "refs" / (ref or "x")).parent):
        directory.mkdir(parents=True, exist_ok=True)
    if how == "only":
        path.write_bytes(body)
    else:
        blob.write_bytes(body)
        path.symlink_to(os.path.relpath(blob, path.parent)) if how == "symlink" else path.hardlink_to(blob)
    if ref:
        (repository / "refs" / ref).write_text(commit)
    return path


def test_nothing(tmp_path: Path) -> None:
    assert scan(tmp_path / "none", tmp_path / "nowhere") == ()


@pytest.mark.parametrize("how", ["symlink", "hardlink", "only"])
def test_versions_in_the_hubs_cache(cache: Path, how: str) -> None:
    new = put(cache, NEW, "q/m.gguf", b"GGUF\x11", how=how, ref="pr/1")
    put(cache, OLD, "q/m.gguf", b"GGUF\x22", how=how)
    put(cache, NEW, "README.md", b"# a\x33", how=how)
    found = scan(cache.parent, cache)
    assert [(one.label, one.version, one.current, one.state) for one in found] == [
        ("a/b-GGUF/q/m.gguf", NEW, True, "complete"),
        ("a/b-GGUF/q/m.gguf", OLD, False, "complete"),
    ]
    assert found[0].path == new
    assert found[0].size == 5
    assert found[0].frees == new.stat().st_blocks * 512
    assert (found[0].blob is None) == (how == "only")
    assert found[0].sharing == ()


def test_two_versions_with_the_same_bytes(cache: Path) -> None:
    paths = [put(cache, commit, "m.gguf", b"GGUF\x11") for commit in (NEW, OLD)]
    found = scan(cache.parent, cache)
    assert [one.sharing for one in found] == [(paths[1],), (paths[0],)]
    assert [one.frees for one in found] == [0, 0]


def test_what_is_not_finished(cache: Path) -> None:
    models, blobs = cache.parent, cache / "models--a--b-GGUF" / "blobs"
    put(cache, NEW, "m.gguf", b"GGUF\x11")
    (blobs / "c0ffee.part").write_bytes(b"x" * 10)
    (blobs / "c0ffee.part.json").write_text("{}")
    (blobs / "c0ffee.lock").touch()
    (blobs / "dead.12ab.incomplete").write_bytes(b"x")
    (blobs / "beef").write_bytes(b"GGUF: complete, but its process was killed before it had a link")
    (blobs / "feed").write_bytes(b"something else")
    (models / "url" / "0123").mkdir(parents=True)
    (models / "url" / "0123" / "m.gguf.part").write_bytes(b"x")
    (models / "url" / "0123" / "m.gguf").write_bytes(b"GGUF")
    partial = {str(one.path.relative_to(models)): one for one in scan(models, cache) if one.state == "partial"}
    short = "huggingface/models--a--b-GGUF/blobs"
    assert set(partial) == {
        "url/0123/m.gguf.part",
        f"{short}/c0ffee.part",
        f"{short}/dead.12ab.incomplete",
        f"{short}/beef",
    }
    assert [path.name for path in partial[f"{short}/c0ffee.part"].owned] == ["c0ffee.part.json", "c0ffee.part"]
    assert partial[f"{short}/c0ffee.part"].lock == blobs / "c0ffee.lock"
    assert partial["url/0123/m.gguf.part"].lock == models / "url" / "0123" / "m.gguf.lock"


def test_what_is_not_ours(cache: Path) -> None:
    models = cache.parent
    for name in (".verified/x.gguf", "notes.txt", "huggingface/models--odd/snapshots/x/m.gguf", "dir.gguf/x"):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).write_bytes(b"GGUF")
    (models / "broken.gguf").symlink_to("nowhere")
    (cache / "models--a--c" / "snapshots" / "main").mkdir(parents=True)
    (cache / "models--a--c" / "refs").mkdir()
    (cache / "models--a--c" / "refs" / "main").write_bytes(b"\xff")
    assert scan(models, cache) == ()


def test_files_that_vanish_meanwhile(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, NEW, "m.gguf", b"GGUF\x11")
    part = cache.parent / "m.gguf.part"
    part.write_bytes(b"x")
    monkeypatch.setattr("llama_gguf.models.shelf.scan._partial_sizes", _finish)
    assert [one.label for one in scan(cache.parent, cache)] == ["a/b-GGUF/m.gguf"]
    monkeypatch.setattr("llama_gguf.models.shelf.scan._sizes", lambda path: path.with_name("none").stat())
    with pytest.raises(ModelError, match="change all the time"):
        scan(cache.parent, cache)

    def fail(_: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("llama_gguf.models.shelf.scan._sizes", fail)
    with pytest.raises(ModelError, match="Stale file handle") as caught:
        scan(cache.parent, cache)
    assert caught.value.hint


def _finish(part: Path) -> tuple[int, int]:
    """End the download between the listing and the look at its size."""
    part.unlink()
    return part.stat().st_size, 0


def test_a_cache_elsewhere(tmp_path: Path) -> None:
    put(tmp_path / "hub", NEW, "m.gguf", b"GGUF\x11")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.gguf").write_bytes(b"GGUF")
    labels = [one.label for one in scan(tmp_path / "models", tmp_path / "hub")]
    assert labels == ["mine.gguf", "a/b-GGUF/m.gguf"]


def test_the_hubs_digest_is_the_name_of_the_blob(cache: Path, tmp_path: Path) -> None:
    assert published_sha256(put(cache, NEW, "m.gguf", b"GGUF\x11")) == "11" * 32
    assert published_sha256(tmp_path / "m.gguf") is None
