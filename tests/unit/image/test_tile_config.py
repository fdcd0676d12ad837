"""The check of AMX's tile configuration, on libraries compiled here: from what llama.cpp has and what we make of it."""

from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from image.engine import recipe, tile_config

x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is Intel's")

TYPES = """
#include <immintrin.h>
#include <cstdint>
struct tile_config_t{
    uint8_t palette_id = 0;
    uint8_t start_row = 0;
    uint8_t reserved_0[14] = {0};
    uint16_t colsb[16] = {0};
    uint8_t rows[16] = {0};
};
"""


def edit_of_part_5() -> tuple[str, str]:
    """What patches.cmake looks for in llama.cpp's source, and what it puts there."""
    part = recipe.PATCHES_FILE.read_text(encoding="utf-8").split("# 5.")[1].split("# 6.")[0]
    before, after = re.findall(r"\[\[(.*?)\]\]", part, re.DOTALL)
    return before, after


def compile_library(folder: Path, configuration: str) -> bytes:
    source, library = folder / "tiles.cpp", folder / "tiles.so"
    body = TYPES + 'extern "C" void configure() {\n' + configuration + "    _tile_loadconfig(&tc);\n}\n"
    source.write_text(body, encoding="utf-8")
    compiler = shutil.which("c++") or pytest.fail("no C++ compiler: run `make test-tools`")
    flags = ["-O3", "-fPIC", "-shared", "-mamx-tile", "-std=gnu++17"]
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    return library.read_bytes()


@x86_only
def test_llama_cpp_s_own_configuration_is_not_proven_and_ours_is_whole(tmp_path: Path) -> None:
    before, after = edit_of_part_5()
    theirs, ours = compile_library(tmp_path, before), compile_library(tmp_path, after)
    assert tile_config.count(theirs) == tile_config.count(ours) == 1
    assert "no constant data" in tile_config.incomplete(theirs)[0]
    assert tile_config.incomplete(ours) == ()


@x86_only
@pytest.mark.engine
def test_every_configuration_of_the_engine_in_use_is_whole(engine_binary: Path) -> None:
    libraries = list(engine_binary.parent.parent.glob("*/libggml-cpu*.so*"))
    assert libraries
    assert {library.name: tile_config.incomplete(library.read_bytes()) for library in libraries} == {
        library.name: () for library in libraries
    }


@x86_only
@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        (
            "{1, 0, {0}, {64, 64, 32, 32, 64, 64, 64, 64}, {8, 8, 16, 16, 16, 16, 16}}",
            "rows [8, 8, 16, 16, 16, 16, 16, 0]",
        ),
        ("{1, 0, {0}, {64}, {8, 8, 16, 16, 16, 16, 16, 16}}", "columns [64, 0, 0, 0, 0, 0, 0, 0]"),
        ("{0, 0, {0}, {64, 64, 32, 32, 64, 64, 64, 64}, {8, 8, 16, 16, 16, 16, 16, 16}}", "palette 0"),
    ],
)
def test_a_tile_without_rows_or_columns_is_found(tmp_path: Path, configuration: str, words: str) -> None:
    library = compile_library(tmp_path, f"    alignas(64) static const tile_config_t tc = {configuration};\n")
    (problem,) = tile_config.incomplete(library)
    assert words in problem


@x86_only
def test_an_address_outside_of_the_file_is_no_proof(tmp_path: Path) -> None:
    library = bytearray(compile_library(tmp_path, edit_of_part_5()[1]))
    place = library.index(b"\xc4\xe2\x78\x49\x05") + 5
    library[place : place + 4] = struct.pack("<i", 1 << 30)
    assert "not in the file" in tile_config.incomplete(bytes(library))[0]


def test_bytes_of_data_and_other_architectures_are_no_instructions() -> None:
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<H", header, 18, 183)  # aarch64
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    code = b"\xc4\xe2\x78\x49\x05\0\0\0\0"
    for flags, machine, expected in ((5, 183, 0), (4, 62, 0), (5, 62, 1)):
        struct.pack_into("<H", header, 18, machine)
        segment = struct.pack("<IIQQQQQQ", 1, flags, 120, 120, 120, len(code), len(code), 1)
        assert tile_config.count(bytes(header) + segment + code) == expected


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 20, b"\x7fELF\x01\x01" + bytes(100)])
def test_a_file_that_is_no_library(data: bytes) -> None:
    with pytest.raises(ValueError, match="ELF"):
        tile_config.incomplete(data)
