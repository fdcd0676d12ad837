from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from llama_gguf.engine import variant_memory
from llama_gguf.engine.variant_memory import CrashedVariant
from llama_gguf.errors import KeysError

ONE, TWO, THREE = (CrashedVariant("cpu", name, name * 3) for name in ("zen4", "haswell", "x64"))


def test_added_read_and_withdrawn(tmp_path: Path) -> None:
    path = tmp_path / "data" / "v.json"
    assert variant_memory.read(path) == ()
    variant_memory.withdraw(path, [ONE])
    assert not path.parent.exists()
    variant_memory.add(path, [ONE])
    variant_memory.add(path, [ONE, TWO])
    variant_memory.add(path, [THREE])
    assert variant_memory.read(path) == (ONE, TWO, THREE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    variant_memory.withdraw(path, [ONE, THREE])
    assert variant_memory.read(path) == (TWO,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"crashed": 1}',
        b'{"crashed": {}, "x": 1',
        b'{"crashed": [{"cpu": "a"}]}',
        b'{"crashed": [{"cpu": "a", "variant": "b", "sha256": "c", "more": 1}]}',
        b'{"crashed": [{"cpu": "a", "variant": ["b"], "sha256": "c"}]}',
        json.dumps({"crashed": [{"cpu": "a", "variant": "b" * 10_000, "sha256": "c"}]}).encode(),
        b"[" * 200_000,
        b'{"crashed": []}' + b" " * 2_000_000,
    ],
)
def test_a_damaged_file_is_ignored_with_a_word_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "v.json"
    path.write_bytes(content)
    assert variant_memory.read(path) == ()
    assert "invalid and is ignored" in caplog.text
    variant_memory.add(path, [ONE])
    assert variant_memory.read(path) == (ONE,)


def test_a_link_is_not_followed_and_a_pipe_does_not_block(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    victim = tmp_path / "victim.json"
    variant_memory.add(victim, [ONE])
    before = victim.read_bytes()
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path in (link, pipe):
        assert variant_memory.read(path) == ()
        variant_memory.add(path, [TWO])
        assert variant_memory.read(path) == (TWO,)
        assert path.is_file()
        assert not path.is_symlink()
    assert victim.read_bytes() == before
    assert "is invalid" in caplog.text


def test_what_cannot_be_written_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "v.json").mkdir()
    with pytest.raises(KeysError, match=r"cannot replace .*v\.json"):
        variant_memory.add(tmp_path / "v.json", [ONE])
    (tmp_path / "file").touch()
    with pytest.raises(KeysError):
        variant_memory.add(tmp_path / "file" / "v.json", [ONE])


def _add_many(path: Path, box: int) -> None:
    for number in range(10):
        variant_memory.add(path, [CrashedVariant(f"cpu-{box}", f"variant-{number}", "x")])


def test_boxes_that_share_a_volume_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    context = multiprocessing.get_context("spawn")
    boxes = [context.Process(target=_add_many, args=(path, box)) for box in range(4)]
    for box in boxes:
        box.start()
    for box in boxes:
        box.join()
        assert box.exitcode == 0
    assert len(variant_memory.read(path)) == 40


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    variant_memory.add(path, [CrashedVariant(f"{number}", "v", "s") for number in range(2000)])
    assert len(variant_memory.read(path)) == 1000
