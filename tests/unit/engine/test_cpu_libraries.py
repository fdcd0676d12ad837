from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llama_gguf.engine.cpu_libraries import can_select_variant, find_libraries, sha256

MARKER = b"\x7fELF...GGML_CPU_VARIANT\0..."


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    path = tmp_path / "bin" / "llama-server"
    path.touch()
    return path


def test_the_libraries_beside_the_program(binary: Path) -> None:
    assert find_libraries(binary) == {}
    for name in ("cpu-haswell", "cpu-armv8.2_1", "cuda", "base", "cpu"):
        binary.with_name(f"libggml-{name}.so").touch()
    binary.with_name("libggml-cpu-zen4.so").mkdir()
    binary.with_name("libggml-cpu-x64.so.0.1").touch()
    assert find_libraries(binary) == {
        "armv8.2_1": binary.with_name("libggml-cpu-armv8.2_1.so"),
        "haswell": binary.with_name("libggml-cpu-haswell.so"),
    }


def test_a_link_to_the_program_is_followed(binary: Path, tmp_path: Path) -> None:
    binary.with_name("libggml-cpu-x64.so").touch()
    (tmp_path / "lib" / "libggml.so").write_bytes(MARKER)
    link = tmp_path / "llama-server"
    link.symlink_to(binary)
    assert list(find_libraries(link)) == ["x64"]
    assert can_select_variant(link)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("lib/libggml.so", MARKER, True),
        ("lib/libggml.so.0.25.3", MARKER, True),
        ("bin/libggml.so.0", MARKER, True),
        ("lib/libggml.so", b"", False),
        ("lib/libggml.so", b"GGML_CPU_VARIAN", False),
        ("lib/libggml-base.so", MARKER, False),
        ("bin/libggml-cpu-haswell.so", MARKER, False),
        ("lib/libllama.so", MARKER, False),
    ],
)
def test_the_edit_is_known_by_the_variables_name(binary: Path, name: str, content: bytes, *, expected: bool) -> None:
    assert not can_select_variant(binary)
    (binary.parents[1] / name).write_bytes(content)
    assert can_select_variant(binary) is expected


def test_a_library_that_cannot_be_read_is_without_it(binary: Path) -> None:
    (binary.parents[1] / "lib" / "libggml.so").mkdir()
    (binary.parents[1] / "lib" / "libggml.so.0").symlink_to("nowhere")
    assert not can_select_variant(binary)


def test_digests(binary: Path) -> None:
    binary.write_bytes(b"abc")
    assert sha256(binary) == hashlib.sha256(b"abc").hexdigest()
    assert sha256(binary.parent) == sha256(binary.with_name("none")) == ""
