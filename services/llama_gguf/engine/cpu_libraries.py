"""The variants of the CPU code beside a llama-server, and whether the one to load can be selected."""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path

VARIABLE = "GGML_CPU_VARIANT"
"""Variable of llama-server that selects the variant: our patch of ggml (image/engine/patches.cmake)."""

LIBRARY_FOLDERS = ("../lib", ".")
"""Directories of llama-server's libraries, relative to its own."""
_PREFIX, _SUFFIX = "libggml-cpu-", ".so"


def find_libraries(binary: Path) -> dict[str, Path]:
    """Return the library of each variant beside the program; none if the CPU code is linked into it."""
    # Where ggml searches: beside the executable, with links resolved.
    directory = Path(os.path.realpath(binary)).parent
    return {
        path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX): path
        for path in sorted(directory.glob(f"{_PREFIX}*{_SUFFIX}"))
        if path.is_file()
    }


def can_select_variant(binary: Path) -> bool:
    """Return whether this llama-server's libggml reads `VARIABLE`, judged by the name in its bytes."""
    directory = Path(os.path.realpath(binary)).parent
    libraries = [path for folder in LIBRARY_FOLDERS for path in (directory / folder).glob("libggml.so*")]
    return any(_contains(path, VARIABLE.encode()) for path in libraries)


def _contains(path: Path, text: bytes) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def sha256(path: Path) -> str:
    """Return the digest of a library; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
