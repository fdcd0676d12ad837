"""Room for several files: those on one volume together, what is allocated already, and nothing twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.download.partial_file import SPARE_BYTES
from llama_gguf.models.download.room import Missing, check_room

GIB = 1 << 30


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


def test_files_count_together_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [Missing(tmp_path / "not" / "there" / name, GIB) for name in ("a", "b", "a")]
    free(monkeypatch, 2 * GIB + SPARE_BYTES)
    check_room([*files, Missing(tmp_path / "unknown", None)])
    free(monkeypatch, 2 * GIB + SPARE_BYTES - 1)
    with pytest.raises(ModelError, match=r"needs 2\.1 GB more, but only 2\.2 GB are free") as caught:
        check_room(files)
    assert caught.value.message.startswith(str(tmp_path))


def test_what_is_allocated_is_not_needed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.part").write_bytes(bytes(1 << 20))
    free(monkeypatch, SPARE_BYTES)
    with pytest.raises(ModelError):
        check_room([Missing(tmp_path / "a", (1 << 20) + 1)])
    check_room([Missing(tmp_path / "a", 1 << 20)])
    (tmp_path / "x.0a1b.incomplete").write_bytes(bytes(1 << 20))  # what huggingface_hub leaves
    check_room([Missing(tmp_path / "x", 1 << 20)])
    free(monkeypatch, 0)
    check_room([])
    check_room([Missing(tmp_path / "b", None)])


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second volume")
def test_volumes_count_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one volume")
    free(monkeypatch, GIB + SPARE_BYTES)
    check_room([Missing(tmp_path / "a", GIB), Missing(other / "llama-gguf-a", GIB)])
