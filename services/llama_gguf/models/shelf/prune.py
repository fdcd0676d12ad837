"""What can be removed: unfinished downloads and old versions, never what a configuration uses or a download holds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path

from llama_gguf.models.download.errors import disk_error
from llama_gguf.models.download.lock import hold_now
from llama_gguf.models.shelf.last_use import LastUse
from llama_gguf.models.shelf.scan import Stored
from llama_gguf.models.shelf.use import Uses


def prunable(stored: Iterable[Stored], uses: Uses) -> list[Stored]:
    """Return the unfinished downloads and old versions that no model uses.

    A version is old if its repository has the same file in a newer one, or in one that a branch or a model refers to.
    """
    stored = list(stored)
    found = []
    for one in stored:
        if uses.of(one):
            continue
        if one.state == "partial" or (one.repository and not one.current and _is_superseded(one, stored, uses)):
            found.append(one)
    return found


def _is_superseded(old: Stored, stored: list[Stored], uses: Uses) -> bool:
    others = [one for one in stored if one.label == old.label and one.version not in ("", old.version)]
    return any(one.current or uses.of(one) or _modified(one) > _modified(old) for one in others)


def _modified(stored: Stored) -> float:
    return stored.path.lstat().st_mtime


def remove(stored: Stored, uses: LastUse) -> bool:
    """Delete the file and what only it needs; False if a download holds it. Raises ModelError when that fails."""
    try:
        with hold_now(stored.lock) if _can_be_downloaded(stored) else nullcontext(True) as held:
            if not held:
                return False
            uses.forget(stored.path)  # by the file that it leads to, so before it is removed
            for path in stored.owned:
                path.unlink(missing_ok=True)
            if stored.blob and not any(other.exists() for other in stored.sharing):
                stored.blob.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(stored.path, error) from error
    _remove_empty(stored)
    return True


def _can_be_downloaded(stored: Stored) -> bool:
    """Return whether a download can be at work on it: not on a file that an operator has put there."""
    return stored.state == "partial" or stored.repository is not None or stored.lock.exists()


def _remove_empty(stored: Stored) -> None:
    """Remove the directories of a version that has no more files, up to that of the version itself."""
    if not (stored.repository and stored.version):
        return
    top: Path = stored.repository / "snapshots"
    directory = stored.path.parent
    with suppress(OSError):  # not empty, or somebody else's new file is in it
        while directory != top:
            directory.rmdir()
            directory = directory.parent
