"""How a GGUF file begins, what it is called, and which file in a directory a name stands for."""

from __future__ import annotations

import os
from pathlib import Path

MAGIC = b"GGUF"
SUFFIX = ".gguf"


def has_suffix(name: str) -> bool:
    """Return whether `name` ends as the name of a GGUF file does, in any mixture of case."""
    return name.lower().endswith(SUFFIX)


def possible_names(name: str) -> tuple[str, str]:
    """Return the names of the files that `name` may stand for, the better one first: it may leave out its suffix."""
    return name, name + SUFFIX


def named_file(directory: Path, name: str) -> Path:
    """Return the file in `directory` that `name` stands for.

    A link to nothing counts as a file, and where there is no file what else has the name is returned, or the name as
    it is: an error can speak of it.
    """
    there = [directory / possible for possible in possible_names(name) if os.path.lexists(directory / possible)]
    files = (path for path in there if not os.path.isdir(path))  # noqa: PTH112 - Path.is_dir raises in a closed folder
    return next(files, there[0] if there else directory / name)
