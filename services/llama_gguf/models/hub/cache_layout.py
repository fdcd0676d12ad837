"""The layout of Hugging Face's cache: where a repository's files, commits and refs are on disk. No network.

models--OWNER--NAME/blobs/ETAG                     the bytes
models--OWNER--NAME/snapshots/COMMIT/FILE          a link to the blob
models--OWNER--NAME/refs/BRANCH                    text: the commit last seen there
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from llama_gguf.errors import ModelError
from llama_gguf.models.source import OnHub, split_names

COMMIT = re.compile(r"[0-9a-f]{40}")


def repository(cache: Path, origin: OnHub) -> Path:
    """Return the directory of the repository in `cache`."""
    return cache / ("models--" + origin.repo.replace("/", "--"))


def snapshots(cache: Path, origin: OnHub) -> Path:
    """Return the directory that contains one directory for each commit."""
    return repository(cache, origin) / "snapshots"


def find_cached(origin: OnHub) -> Path | None:
    """Return the path of the file in one of the caches, if all its parts are there."""
    for cache in origin.caches:
        for commit in _known_commits(cache, origin):
            snapshot = snapshots(cache, origin) / commit
            if all((snapshot / name).is_file() for name in split_names(origin.file)):
                return snapshot / split_names(origin.file)[0]
    return None


def _known_commits(cache: Path, origin: OnHub) -> list[str]:
    """Return the commits that `revision` can refer to, best first."""
    if COMMIT.fullmatch(origin.revision):
        return [origin.revision]
    try:
        commit = (repository(cache, origin) / "refs" / origin.revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = ""
    if COMMIT.fullmatch(commit):
        return [commit]
    if origin.revision != "main":
        return []
    # RunPod's cache does not always record which commit `main` is: use the newest.
    try:
        found = sorted(snapshots(cache, origin).iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    return [snapshot.name for snapshot in found]


def publish(origin: OnHub, commit: str, name: str, blob: Path) -> Path:
    """Link `blob` as file `name` of `commit`, record the commit of the revision, and return the link."""
    cache = origin.caches[0]
    link = snapshots(cache, origin) / commit / name
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            temporary = link.with_name(f".{link.name}.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(os.path.relpath(blob, link.parent))
            temporary.replace(link)
        if not COMMIT.fullmatch(origin.revision):
            reference = repository(cache, origin) / "refs" / origin.revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, encoding="ascii")
    except OSError as error:
        raise ModelError(
            f"{link}: cannot be created: {error.strerror}",
            code="models_dir_not_writable",
            hint="check the permissions of paths.models_dir",
        ) from error
    return link
