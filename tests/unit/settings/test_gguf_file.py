from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.settings.gguf_file import has_suffix, named_file


def test_a_suffix_in_any_case() -> None:
    assert has_suffix("m.gguf")
    assert has_suffix("M.GGUF")
    assert not has_suffix("m.gguf.part")


@pytest.mark.parametrize(
    ("there", "name", "expected"),
    [
        (("m.gguf",), "m.gguf", "m.gguf"),
        (("m.gguf",), "m", "m.gguf"),
        (("m", "m.gguf"), "m", "m"),
        (("m/", "m.gguf"), "m", "m.gguf"),  # a directory is no model
        (("m.gguf/",), "m", "m.gguf"),
        (("d/m.gguf",), "d/m", "d/m.gguf"),
        (("m.gguf",), "n", "n"),
    ],
)
def test_the_file_a_name_stands_for(tmp_path: Path, there: tuple[str, ...], name: str, expected: str) -> None:
    for file in there:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if file.endswith("/") else path.touch()
    assert named_file(tmp_path, name) == tmp_path / expected


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").symlink_to(tmp_path / "absent")
    assert named_file(tmp_path, "m") == tmp_path / "m.gguf"
