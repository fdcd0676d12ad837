"""The files of models on disk: those of the models directory, of URLs, and in the hub's cache, with their versions."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llama_gguf.errors import ModelError
from llama_gguf.models.hub.cache_layout import COMMIT
from llama_gguf.models.hub.file import SHA256
from llama_gguf.models.shelf.last_use import LastUse
from llama_gguf.settings.gguf_file import MAGIC, has_suffix

Inode = tuple[int, int]
State = Literal["complete", "partial"]

_ATTEMPTS = 5
_PART = ".part"
_REMAINS = (".part.json", ".part.json.new")
_REPOSITORY = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Stored:
    """One file on the shelf, and what is deleted with it.

    `path` is where an engine opens it. A file of the hub has a `repository` and a `version`, its commit; `current` says
    that a branch or tag refers to that. `owned` are the paths that no other file on the shelf needs; its `blob` is
    needed until the last of `sharing`, other versions with the same bytes, is removed.
    """

    path: Path
    label: str
    state: State
    size: int  # of a partial file, what is allocated on disk
    frees: int  # bytes that its removal frees
    last_used: float | None
    owned: tuple[Path, ...]
    lock: Path
    repository: Path | None = None
    version: str = ""
    current: bool = False
    blob: Path | None = None
    sharing: tuple[Path, ...] = ()


def scan(models_dir: Path, hub_cache: Path) -> tuple[Stored, ...]:
    """Return all that is stored in the two directories. Raises ModelError where they cannot be read."""
    for _ in range(_ATTEMPTS):
        try:
            return _scan(models_dir, hub_cache)
        except FileNotFoundError:  # a download was finished meanwhile
            continue
        except OSError as error:
            raise _unreadable(models_dir, error.strerror or str(error)) from error
    raise _unreadable(models_dir, "its files change all the time")


def _unreadable(directory: Path, reason: str) -> ModelError:
    return ModelError(
        f"{directory}: the models cannot be listed: {reason}",
        code="model_not_readable",
        hint="check the volume and the permissions of paths.models_dir and the Hub's cache",
    )


def _scan(models_dir: Path, hub_cache: Path) -> tuple[Stored, ...]:
    uses = LastUse(models_dir)
    hub = [one for repository in sorted(_directories(hub_cache)) for one in _in_repository(repository, uses)]
    return (*_in_directory(models_dir, hub_cache, uses), *hub)


def _in_directory(models_dir: Path, hub_cache: Path, uses: LastUse) -> Iterator[Stored]:
    for path in sorted(models_dir.rglob("*")):
        name = path.relative_to(models_dir)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or path.is_relative_to(hub_cache) or _directory_of_hub(name) or not path.is_file():
            continue
        if path.name.endswith(_PART):
            yield _partial(path, str(name), None)
        elif has_suffix(path.name):
            yield Stored(path, str(name), "complete", *_sizes(path), uses.seconds(path), (path,), lock_of(path))


def _directory_of_hub(name: Path) -> bool:
    """Return whether a file is in another cache of the hub below the models directory."""
    return any(_REPOSITORY.fullmatch(part) for part in name.parts)


def _in_repository(repository: Path, uses: LastUse) -> Iterator[Stored]:
    """Yield the files of one repository: each file of each commit, and what is not finished."""
    found = _REPOSITORY.fullmatch(repository.name)
    if found is None:
        return
    repo = f"{found['owner']}/{found['name']}"
    current = {_read(path) for path in (repository / "refs").rglob("*") if path.is_file()}
    blobs = {_inode(path): path for path in _files(repository / "blobs") if not _is_unfinished(path.name)}
    links: dict[Inode, list[Path]] = defaultdict(list)
    linked: set[Inode] = set()
    versions = [path for path in sorted(_directories(repository / "snapshots")) if COMMIT.fullmatch(path.name)]
    for version in versions:
        for path in sorted(version.rglob("*")):
            if path.is_file():
                linked.add(_inode(path))
                if has_suffix(path.name):
                    links[_inode(path)].append(path)
    for inode, paths in links.items():
        blob = blobs.get(inode)
        for path in paths:
            commit = path.relative_to(repository / "snapshots").parts[0]
            name = path.relative_to(repository / "snapshots" / commit)
            sharing = tuple(other for other in paths if other != path)
            size, frees = _sizes(path)
            yield Stored(
                path,
                f"{repo}/{name}",
                "complete",
                size,
                0 if sharing else frees,
                uses.seconds(path),
                (path,),
                lock_of(blob or repository / "blobs" / path.name),
                repository,
                version=commit,
                current=commit in current,
                blob=blob,
                sharing=sharing,
            )
    for path in sorted(_files(repository / "blobs")):
        if path.name.endswith(_PART):
            yield _partial(path, f"{repo}/{path.name[:12]}", repository)
        elif (links and _is_unfinished(path.name)) or (_inode(path) not in linked and _has_magic(path)):
            yield _unfinished(path, repo, repository)


def _partial(path: Path, label: str, repository: Path | None) -> Stored:
    destination = path.with_name(path.name.removesuffix(_PART))
    remains = [destination.with_name(destination.name + suffix) for suffix in _REMAINS]
    owned = (*(one for one in remains if one.is_file()), path)  # the sidecar first: without it, the part is ignored
    label = label.removesuffix(_PART)
    return Stored(path, label, "partial", *_partial_sizes(path), None, owned, lock_of(destination), repository)


def _unfinished(path: Path, repo: str, repository: Path) -> Stored:
    """Return what huggingface_hub has not finished, or a file that was not linked any more before its process ended."""
    destination = path.with_name(path.name.split(".")[0])
    label = f"{repo}/{destination.name[:12]}"
    return Stored(path, label, "partial", *_partial_sizes(path), None, (path,), lock_of(destination), repository)


def published_sha256(path: Path) -> str | None:
    """Return the SHA-256 that the hub has published for a file in its cache: the name of the file's blob."""
    name = Path(os.path.realpath(path)).name
    return name if SHA256.fullmatch(name) else None


def lock_of(path: Path) -> Path:
    """Return the lock file that is held by whoever downloads to `path`."""
    return path.with_name(path.name + ".lock")


def _is_unfinished(name: str) -> bool:
    return name.endswith(".incomplete")


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _directories(directory: Path) -> list[Path]:
    return [path for path in _entries(directory) if path.is_dir()]


def _files(directory: Path) -> list[Path]:
    return [path for path in _entries(directory) if path.is_file()]


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _inode(path: Path) -> Inode:
    status = path.stat()
    return status.st_dev, status.st_ino


def _sizes(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_blocks * 512


def _partial_sizes(path: Path) -> tuple[int, int]:
    allocated = path.stat().st_blocks * 512
    return allocated, allocated


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
