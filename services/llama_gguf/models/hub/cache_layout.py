"""The layout of Hugging Face's cache: where a repository's files, commits and refs are on disk. No network.

models--OWNER--NAME/blobs/ETAG                     the bytes
models--OWNER--NAME/snapshots/COMMIT/FILE          a link to the blob
models--OWNER--NAME/refs/BRANCH                    text: the commit last seen there

Where a volume has no symbolic links (exFAT, many SMB shares), the file in `snapshots` is a hard link, or it is the only
one and `blobs` has none, as in huggingface_hub's own caches there.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from llama_gguf.errors import ModelError
from llama_gguf.models.source import OnHub, split_names

COMMIT = re.compile(r"[0-9a-f]{40}")


# What file systems answer that have no links of this kind.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}


def repository(cache: Path, origin: OnHub) -> Path:
    """Return the directory of the repository in `cache`."""
    return cache / _directory_name(origin)


def _directory_name(origin: OnHub) -> str:
    return "models--" + origin.repo.replace("/", "--")


def snapshots(cache: Path, origin: OnHub) -> Path:
    """Return the directory that contains one directory for each commit."""
    return repository(cache, origin) / "snapshots"


def find_cached(origin: OnHub) -> Path | None:
    """Return the path of the file in one of the caches, if all its parts are there."""
    names = split_names(origin.file)
    for cache in origin.caches:
        for directory in _spellings(cache, origin):
            for commit in _known_commits(directory, origin):
                snapshot = directory / "snapshots" / commit
                if all((snapshot / name).is_file() for name in names):
                    return snapshot / names[0]
    return None


def spelled_differently(path: Path, origin: OnHub) -> bool:
    """Return whether `path`, as found in a cache, is below a directory that spells the repository in other case."""
    return _directory_name(origin) not in path.parts


def _spellings(cache: Path, origin: OnHub) -> Iterator[Path]:
    """Yield the directories that can be the repository's: the exact name, then others that differ only in case.

    RunPod's cache spells repositories in lower case. The Hub has no two names that differ only in case; of several
    directories the one that was changed last comes first.
    """
    exact = repository(cache, origin)
    yield exact
    try:
        entries = [entry for entry in cache.iterdir() if entry.name.lower() == exact.name.lower()]
        dated = sorted(((entry.stat().st_mtime, entry) for entry in entries if entry.name != exact.name), reverse=True)
    except OSError:
        return
    yield from (entry for _, entry in dated)


def _known_commits(directory: Path, origin: OnHub) -> list[str]:
    """Return the commits that `revision` can refer to in a repository's `directory`, best first."""
    if COMMIT.fullmatch(origin.revision):
        return [origin.revision]
    try:
        commit = (directory / "refs" / origin.revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = ""
    if COMMIT.fullmatch(commit):
        return [commit]
    if origin.revision != "main":
        return []
    # RunPod's cache does not always record which commit `main` is: use the newest.
    try:
        found = sorted((directory / "snapshots").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    return [snapshot.name for snapshot in found]


def prepare(origin: OnHub, commit: str, name: str) -> Path:
    """Create the directories of file `name` of `commit` and of the reference, and return the file's path.

    Before the download, so that a directory that cannot be written to costs no download.
    """
    path = snapshots(origin.caches[0], origin) / commit / name
    directories = [path.parent] + ([] if COMMIT.fullmatch(origin.revision) else [_reference(origin).parent])
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            probe = directory / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink(missing_ok=True)  # another machine's process can have the same number
    except OSError as error:
        raise _cannot_create(path, error) from error
    return path


def publish(origin: OnHub, commit: str, path: Path, blob: Path) -> None:
    """Make `blob` the file at `path`, which is of `commit`, and record the commit of the revision."""
    try:
        if not path.exists():
            _link(path, blob)
        if not COMMIT.fullmatch(origin.revision):
            _reference(origin).write_text(commit, encoding="ascii")
    except OSError as error:
        raise _cannot_create(path, error) from error


def _reference(origin: OnHub) -> Path:
    return repository(origin.caches[0], origin) / "refs" / origin.revision


def _link(path: Path, blob: Path) -> None:
    """Create `path`, atomically: a symbolic link to `blob`, else a hard link, else the file itself."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    for make in (_symbolic_link, _hard_link):
        try:
            make(temporary, blob)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            temporary.replace(path)
            with suppress(FileNotFoundError):  # rename does nothing between two hard links to one file
                temporary.unlink()
            return
    blob.replace(path)


def _symbolic_link(path: Path, blob: Path) -> None:
    path.symlink_to(os.path.relpath(blob, path.parent))


def _hard_link(path: Path, blob: Path) -> None:
    path.hardlink_to(blob)


def _cannot_create(path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{path}: cannot be created: {error.strerror}",
        code="models_dir_not_writable",
        hint="check the permissions of paths.models_dir",
    )
