from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.settings.gguf_file import MAGIC, described, has_suffix, named_file, other_format, part_of


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


def test_parts() -> None:
    assert part_of("m-00002-of-00003.gguf") == (2, 3)
    assert part_of("m-00002-of-00003.GGUF") == (2, 3)
    assert part_of("m.gguf") == part_of("m-2-of-3.gguf") == part_of("m-00002-of-00003.gguf.part") == (1, 1)


def test_other_formats_by_their_names() -> None:
    assert other_format("model.SafeTensors") == "a safetensors file"
    assert other_format("model-00001-of-00002.safetensors") == "a safetensors file"
    assert other_format("m.gguf.zip") == "an archive"
    assert other_format("m.gguf") == other_format("4711") == ""


def test_other_formats_by_their_first_bytes() -> None:
    assert described(b"version https://git-lfs.github.com/spec/v1") == "a Git LFS pointer"
    assert described((1234).to_bytes(8, "little") + b'{"__metadata__') == "a safetensors file"
    assert described(b"PK\x03\x04\x00\x00") == "a PyTorch file or an archive"
    assert described(b"\n <!DOCTYPE html>") == "a web page"
    assert described(MAGIC + b"\x03\x00\x00\x00") == described(b"") == ""
