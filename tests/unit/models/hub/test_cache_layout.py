"""Files in a cache as Hugging Face lays it out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.hub.cache_layout import find_cached, prepare, publish, spelled_differently
from llama_gguf.models.source import OnHub

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def origin(tmp_path: Path) -> OnHub:
    """A file in a repository, with two empty caches."""
    return OnHub("owner/name", "m.gguf", "main", (tmp_path / "ours", tmp_path / "theirs"))


def put(cache: Path, commit: str, *names: str, age: int = 0) -> Path:
    snapshot = cache / "models--owner--name/snapshots" / commit
    snapshot.mkdir(parents=True)
    for name in names:
        (snapshot / name).write_bytes(b"GGUF")
    os.utime(snapshot, (1e9 - age, 1e9 - age))
    return snapshot


def test_a_commit_is_found_in_any_cache_and_no_other_is_taken_for_it(origin: OnHub) -> None:
    there = put(origin.caches[1], OLD, "m.gguf")
    assert find_cached(replace(origin, revision=OLD)) == there / "m.gguf"
    assert find_cached(replace(origin, revision=NEW)) is None


def test_a_branch_is_the_commit_that_was_recorded_for_it(origin: OnHub) -> None:
    put(origin.caches[0], NEW, "m.gguf")
    old = put(origin.caches[0], OLD, "m.gguf", age=60)
    reference = origin.caches[0] / "models--owner--name/refs/main"
    reference.parent.mkdir()
    reference.write_text(f"{OLD}\n")
    assert find_cached(origin) == old / "m.gguf"


def test_main_without_a_record_is_the_newest_commit_and_another_branch_is_none(origin: OnHub) -> None:
    put(origin.caches[1], OLD, "m.gguf", age=60)
    new = put(origin.caches[1], NEW, "m.gguf")
    assert find_cached(origin) == new / "m.gguf"
    assert find_cached(replace(origin, revision="v2")) is None


def test_a_split_model_is_there_when_all_its_parts_are(origin: OnHub) -> None:
    names = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    there = put(origin.caches[0], NEW, names[0])
    split = replace(origin, file=names[0])
    assert find_cached(split) is None
    (there / names[1]).write_bytes(b"GGUF")
    assert find_cached(split) == there / names[0]


def test_what_is_published_is_found_again(origin: OnHub, tmp_path: Path) -> None:
    blob = tmp_path / "ours/models--owner--name/blobs/etag"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"GGUF")
    for _ in range(2):
        link = prepare(origin, NEW, "m.gguf")
        publish(origin, NEW, link, blob)
        assert (link.resolve(), link.readlink()) == (blob, Path("../../blobs/etag"))
        assert [path.name for path in link.parent.iterdir()] == ["m.gguf"]
    assert find_cached(origin) == link
    assert find_cached(replace(origin, revision=NEW)) == link


def test_a_cache_that_cannot_be_written_is_said(origin: OnHub, tmp_path: Path) -> None:
    (tmp_path / "ours").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be created") as caught:
        prepare(origin, NEW, "m.gguf")
    assert caught.value.code == "models_dir_not_writable"


def test_another_spelling_is_taken_where_the_exact_one_is_not_there(origin: OnHub) -> None:
    """As RunPod's cache spells: in lower case."""
    wanted = replace(origin, repo="Owner/Name")
    lower = put(origin.caches[1], OLD, "m.gguf")
    found = find_cached(wanted)
    assert found == lower / "m.gguf"
    assert spelled_differently(found, wanted)
    assert not spelled_differently(found, origin)
    exact = origin.caches[1] / "models--Owner--Name/snapshots" / OLD
    exact.mkdir(parents=True)
    assert find_cached(wanted) == found  # the exact one is empty
    (exact / "m.gguf").write_bytes(b"GGUF")
    assert find_cached(wanted) == exact / "m.gguf"
    assert find_cached(replace(origin, repo="owner/other")) is None


def test_of_two_other_spellings_the_last_changed_is_taken(origin: OnHub) -> None:
    for name, age in (("models--OWNER--NAME", 0), ("models--owner--name", 60)):
        snapshot = origin.caches[0] / name / "snapshots" / OLD
        snapshot.mkdir(parents=True)
        (snapshot / "m.gguf").write_bytes(b"GGUF")
        os.utime(origin.caches[0] / name, (1e9 - age, 1e9 - age))
    found = find_cached(replace(origin, repo="Owner/Name"))
    assert found
    assert found.parts[-4] == "models--OWNER--NAME"
