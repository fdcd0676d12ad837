"""The variants of the CPU code that lie beside a llama-server, and whether it can be told which one to load."""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path

VARIABLE = "GGML_CPU_VARIANT"
"""In llama-server's environment: the variant to load. An edit of ours to ggml (image/engine/patches.cmake)."""

LIBRARY_FOLDERS = ("../lib", ".")
"""Where a llama-server's libraries lie, from its own folder."""
_PREFIX, _SUFFIX = "libggml-cpu-", ".so"


def find_libraries(binary: Path) -> dict[str, Path]:
    """Return variant -> its library, of those beside the program; none where the CPU code is part of it."""
    # Where ggml looks: beside the file that runs, whatever link led there.
    directory = Path(os.path.realpath(binary)).parent
    return {
        path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX): path
        for path in sorted(directory.glob(f"{_PREFIX}*{_SUFFIX}"))
        if path.is_file()
    }


def can_be_told(binary: Path) -> bool:
    """Whether this llama-server's libggml heeds `VARIABLE`, judged by the name in its bytes."""
    directory = Path(os.path.realpath(binary)).parent
    libraries = [path for place in LIBRARY_FOLDERS for path in (directory / place).glob("libggml.so*")]
    return any(_holds(path, VARIABLE.encode()) for path in libraries)


def _holds(path: Path, text: bytes) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def sha256(path: Path) -> str:
    """Return the digest of a library; "" when it cannot be read, which is no library's."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
