"""Whether there is room for all files of a download together, before the first byte of the first one."""

from __future__ import annotations

import glob
import shutil
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llama_gguf.models.download.errors import no_space
from llama_gguf.models.download.partial_file import SPARE_BYTES, part_of


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that is to be downloaded to `path`; `size` is None if no server says it."""

    path: Path
    size: int | None


def check_room(missing: Iterable[Missing]) -> None:
    """Raise ModelError unless all of them fit, by volume; a partial file's bytes are already there."""
    needed: dict[int, int] = defaultdict(int)
    volumes: dict[int, Path] = {}
    for one in {one.path: one for one in missing}.values():
        directory = _nearest(one.path.parent)
        device = directory.stat().st_dev
        volumes.setdefault(device, directory)
        needed[device] += max(0, (one.size or 0) - _allocated(one.path))
    for device, directory in volumes.items():
        free = shutil.disk_usage(directory).free
        if needed[device] and needed[device] + SPARE_BYTES > free:
            raise no_space(directory, needed[device], free)


def _nearest(directory: Path) -> Path:
    while not directory.exists():
        directory = directory.parent
    return directory


def _allocated(path: Path) -> int:
    """Return the bytes of what is on disk of a download to `path`, by us or by huggingface_hub."""
    found = 0
    for part in (part_of(path), *path.parent.glob(f"{glob.escape(path.name)}*.incomplete")):
        with suppress(FileNotFoundError):
            found += part.stat().st_blocks * 512
    return found
