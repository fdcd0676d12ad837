"""Whether a library's AMX tile configurations are complete, read from its machine code: needs no CPU with AMX.

A compiler once dropped most of the configuration (patches.cmake, part 5), which shows only on Intel Xeons, as an
illegal instruction at the next tile. So the operand of `ldtilecfg` is read from the file; that works for constant
data, and a configuration on the stack fails the proof.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_BYTES = 64
_TILES = 8
# VEX.128.NP.0F38.W0 49 /0 with an operand in memory; the ModRM byte's middle bits are 0.
_LDTILECFG = re.compile(rb"\xc4[\xe2\xc2\xa2\x82]\x78\x49([\x00-\x07\x40-\x47\x80-\x87])", re.DOTALL)
_RIP_RELATIVE = 0x05
_INSTRUCTION_BYTES = 9  # of the form that is relative to the next instruction
_EXECUTABLE, _LOAD = 1, 1
_X86_64 = 62


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an ELF file as it is loaded."""

    offset: int
    address: int
    size: int
    executable: bool


def segments(elf: bytes) -> tuple[Segment, ...]:
    """Return the loaded segments of a 64-bit little-endian ELF file. Raises ValueError for any other file."""
    if elf[:6] != b"\x7fELF\x02\x01" or len(elf) < 64:
        raise ValueError("not a 64-bit little-endian ELF file")
    start, size, count = (struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54))
    found = []
    for index in range(count):
        kind, flags, offset, address, _, in_file = struct.unpack_from("<IIQQQQ", elf, start + index * size)
        if kind == _LOAD:
            found.append(Segment(offset, address, in_file, bool(flags & _EXECUTABLE)))
    return tuple(found)


def incomplete(elf: bytes) -> tuple[str, ...]:
    """Return the defect of each incomplete tile configuration that the library loads."""
    loaded = segments(elf)
    problems = []
    for code, match in _matches(elf, loaded):
        address = code.address + match.start() - code.offset
        if problem := _problem(elf, loaded, address, match):
            problems.append(f"ldtilecfg at {address:#x}: {problem}")
    return tuple(problems)


def count(elf: bytes) -> int:
    """Return how many times the library loads a tile configuration."""
    return sum(1 for _ in _matches(elf, segments(elf)))


def _matches(elf: bytes, loaded: tuple[Segment, ...]) -> Iterator[tuple[Segment, re.Match[bytes]]]:
    if struct.unpack_from("<H", elf, 18)[0] != _X86_64:
        return
    for code in loaded:
        if code.executable:
            yield from ((code, match) for match in _LDTILECFG.finditer(elf, code.offset, code.offset + code.size))


def _problem(elf: bytes, loaded: tuple[Segment, ...], address: int, match: re.Match[bytes]) -> str:
    if match[1][0] != _RIP_RELATIVE:
        return "the configuration is no constant data, so a compiler may have dropped parts of it"
    target = address + _INSTRUCTION_BYTES + struct.unpack_from("<i", elf, match.end())[0]
    part = next((part for part in loaded if part.address <= target <= part.address + part.size - _BYTES), None)
    if part is None:
        return "the configuration is not in the file"
    data = elf[part.offset + target - part.address :][:_BYTES]
    columns, rows = struct.unpack_from(f"<{_TILES}H", data, 16), data[48 : 48 + _TILES]
    if data[0] != 1 or not all(columns) or not all(rows):
        return (
            f"palette {data[0]}, columns {list(columns)}, rows {list(rows)}: a tile without rows or columns is illegal"
        )
    return ""
