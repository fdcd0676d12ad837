"""Headers that were read from servers, by what each server says its file's version is. Losing them costs a request.

A file holds the first bytes of a model up to its weights; its name says of which model, which version and how large
that one is. Nothing here is trusted: a damaged file is read again from its server.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.header import Header, read_header
from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.gguf_file import SUFFIX


def default_directory(env: Mapping[str, str]) -> Path | None:
    """Return where this user's cached headers are; None without a home directory."""
    cache = clean(env.get("XDG_CACHE_HOME", "")).text
    home = clean(env.get("HOME", "")).text
    if not cache and not home:
        return None
    return (Path(cache) if cache else Path(home) / ".cache").absolute() / "llama-gguf" / "headers"


class HeaderCache:
    """A directory of headers. Without one, or where it is not writable, nothing is found."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def find(self, source: str, version: str = "") -> tuple[Header, int] | None:
        """Return the header of `source` and the size of its file; without `version` that of any."""
        for path in self._paths(source, version):
            with contextlib.suppress(ModelError, OSError, ValueError):
                size = int(path.stem.rpartition("-")[2])
                header = read_header(path)
                if header.end_of_data <= size:
                    return header, size
        return None

    def store(self, source: str, version: str, size: int, header: Header) -> None:
        """Remember the header of the file at `header.path`, instead of those of its other versions."""
        if self._directory is None or not version:
            return
        path = self._directory / f"{_digest(source)}-{_digest(version)}-{size}{SUFFIX}"
        scratch = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # a full or read-only disk: the next plan asks the server again
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            others = [other for other in self._paths(source, "") if other != path]
            try:
                shutil.copyfile(header.path, scratch)
                os.truncate(scratch, min(header.data_offset, scratch.stat().st_size))
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
            for other in others:
                other.unlink(missing_ok=True)

    def _paths(self, source: str, version: str) -> Iterator[Path]:
        if self._directory is None:
            return iter(())
        return self._directory.glob(f"{_digest(source)}-{_digest(version) if version else '*'}-*{SUFFIX}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
