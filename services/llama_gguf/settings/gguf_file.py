"""The magic and suffix of GGUF files, and which file in a directory a model's name refers to."""

from __future__ import annotations

import os
from pathlib import Path

MAGIC = b"GGUF"
SUFFIX = ".gguf"


def has_suffix(name: str) -> bool:
    """Return whether `name` ends in .gguf, in upper or lower case."""
    return name.lower().endswith(SUFFIX)


def possible_names(name: str) -> tuple[str, str]:
    """Return the file names that `name` can refer to, the preferred one first: the suffix can be omitted."""
    return name, name + SUFFIX


def named_file(directory: Path, name: str) -> Path:
    """Return the file in `directory` that `name` refers to.

    A dangling symlink counts as a file. If there is no file, whatever else has the name is returned, or the name
    itself, for use in an error.
    """
    there = [directory / possible for possible in possible_names(name) if os.path.lexists(directory / possible)]
    files = (path for path in there if not os.path.isdir(path))  # noqa: PTH112 - Path.is_dir raises in a closed folder
    return next(files, there[0] if there else directory / name)
