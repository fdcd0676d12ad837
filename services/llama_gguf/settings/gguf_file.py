"""How GGUF files begin and are named, what other formats are, and which file in a directory a model's name means."""

from __future__ import annotations

import os
import re
from pathlib import Path

MAGIC = b"GGUF"
SUFFIX = ".gguf"
GGUF_HINT = "llama.cpp reads only GGUF files; look for a repository whose name ends in -GGUF"

SPLIT = re.compile(rf"-(?P<number>\d{{5}})-of-(?P<count>\d{{5}}){re.escape(SUFFIX)}$", re.IGNORECASE)
"""How the name of one part of a split model ends."""
_OTHER_FORMATS = {
    (".safetensors", ".safetensors.index.json"): "a safetensors file",
    (".bin", ".pt", ".pth", ".ckpt"): "a PyTorch file",
    (".onnx",): "an ONNX file",
    (".h5", ".msgpack", ".npz", ".tflite"): "a file of another framework",
    (".zip", ".tar", ".gz", ".tgz", ".xz", ".zst", ".7z"): "an archive",
    (".html", ".htm"): "a web page",
    (".json", ".md", ".txt", ".yaml", ".yml"): "a text file",
}
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"PK\x03\x04", "a PyTorch file or an archive"),
    (b"\x80\x02", "a PyTorch file"),
    (b"\x1f\x8b", "an archive"),
    (b"ggjt", "a GGML file, the format before GGUF"),
    (b"tjgg", "a GGML file, the format before GGUF"),
    (b"lmgg", "a GGML file, the format before GGUF"),
    (b"<", "a web page"),
)
BEGINNING_BYTES = 32
"""How much of a file `described` wants to see."""


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


def part_of(name: str) -> tuple[int, int]:
    """Return which part of how many the name of a file says it is; (1, 1) for one that is no part."""
    match = SPLIT.search(name)
    return (int(match["number"]), int(match["count"])) if match else (1, 1)


def other_format(name: str) -> str:
    """Return what the end of a file's name says it is, if that is not GGUF; "" if it says nothing."""
    return next((kind for ends, kind in _OTHER_FORMATS.items() if name.lower().endswith(ends)), "")


def described(beginning: bytes) -> str:
    """Return what a file is that begins so and is not GGUF; "" if that is not known."""
    if beginning[8:10] == b'{"':  # after the length of its header
        return "a safetensors file"
    return next((kind for start, kind in _BEGINNINGS if beginning.lstrip().startswith(start)), "")
