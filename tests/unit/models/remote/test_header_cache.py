"""The cache of headers, also in a directory that somebody has damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.models.gguf.header import Header, read_header
from llama_gguf.models.remote.header_cache import HeaderCache, default_directory


@pytest.fixture
def model(tiny_model: Path) -> Header:
    return read_header(tiny_model)


def test_only_the_header_is_stored(tmp_path: Path, model: Header) -> None:
    cache = HeaderCache(tmp_path / "a" / "b")
    assert cache.find("s", "v") is None
    cache.store("s", "v", model.file_bytes, model)
    found = cache.find("s", "v")
    assert found is not None
    assert found[0].tensors == model.tensors
    assert found[1] == model.file_bytes
    (file,) = (tmp_path / "a" / "b").iterdir()
    assert file.stat().st_size == model.data_offset < model.file_bytes
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert cache.find("s") == found
    assert cache.find("other", "v") is None
    assert cache.find("s", "other") is None


def test_a_new_version_replaces_the_old(tmp_path: Path, model: Header) -> None:
    cache = HeaderCache(tmp_path)
    cache.store("s", "v1", model.file_bytes, model)
    cache.store("t", "v1", model.file_bytes, model)
    cache.store("s", "v2", model.file_bytes, model)
    assert cache.find("s", "v1") is None
    assert cache.find("s", "v2")
    assert cache.find("t", "v1")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_damaged_is_not_found(tmp_path: Path, model: Header) -> None:
    cache = HeaderCache(tmp_path)
    cache.store("s", "v", model.file_bytes, model)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], b"<html>" + whole, whole[:-2000]):
        file.write_bytes(damaged)
        assert cache.find("s", "v") is None
    file.unlink()
    file.mkdir()
    assert cache.find("s", "v") is None
    cache.store("s", "v", model.file_bytes, model)  # it cannot be replaced
    file.rmdir()
    file.symlink_to(tmp_path / "nowhere")
    assert cache.find("s", "v") is None
    cache.store("s", "v", model.file_bytes, model)
    assert cache.find("s", "v")
    assert not (tmp_path / "nowhere").exists()


def test_a_name_that_says_too_small_a_size(tmp_path: Path, model: Header) -> None:
    cache = HeaderCache(tmp_path)
    cache.store("s", "v", model.data_offset, model)
    assert cache.find("s", "v") is None


def test_without_a_version_or_a_directory_nothing_is_stored(tmp_path: Path, model: Header) -> None:
    HeaderCache(tmp_path).store("s", "", model.file_bytes, model)
    assert list(tmp_path.iterdir()) == []
    nowhere = HeaderCache(None)
    nowhere.store("s", "v", model.file_bytes, model)
    assert nowhere.find("s", "v") is None


def test_a_directory_that_cannot_be_made(tmp_path: Path, model: Header) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = HeaderCache(blocked / "cache")
    cache.store("s", "v", model.file_bytes, model)
    assert cache.find("s", "v") is None
    assert list(tmp_path.iterdir()) == [blocked]


def test_the_users_own_directory() -> None:
    assert default_directory({"HOME": "/h"}) == Path("/h/.cache/llama-gguf/headers")
    assert default_directory({"HOME": "/h", "XDG_CACHE_HOME": "/x"}) == Path("/x/llama-gguf/headers")
    assert default_directory({}) is None
