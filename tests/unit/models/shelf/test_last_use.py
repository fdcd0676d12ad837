"""When a file was last used: a marker for each, by its real path."""

from __future__ import annotations

import time
from pathlib import Path

from llama_gguf.models.shelf.last_use import LastUse


def test_a_use_is_recorded_for_a_file_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "link").symlink_to("blob")
    uses = LastUse(tmp_path)
    assert uses.seconds(tmp_path / "link") is None
    uses.record(tmp_path / "link")
    found = uses.seconds(tmp_path / "blob")
    assert found is not None
    assert abs(found - time.time()) < 60
    assert LastUse(tmp_path).seconds(tmp_path / "link") == found
    uses.forget(tmp_path / "blob")
    assert uses.seconds(tmp_path / "link") is None
    uses.forget(tmp_path / "blob")


def test_a_volume_that_cannot_be_written_to_has_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    uses = LastUse(tmp_path / "file")  # in place of a directory
    uses.record(tmp_path / "file")
    uses.forget(tmp_path / "file")
    assert uses.seconds(tmp_path / "file") is None
