"""Locations.cpu_variants_file: the variants that crashed, stored beyond the life of the container.

Each entry is valid for one kind of CPU and one library, so a volume can move to another machine, and a new image tries
again. Several containers can share the file: it is changed under a lock. An unreadable file is logged and ignored.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_gguf.atomic_file import exclusive, replace
from llama_gguf.logs import fields

log = logging.getLogger(__name__)

_MAX_BYTES = 1_048_576
_MAX_ENTRIES = 1000
_MAX_TEXT = 256
_LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CrashedVariant:
    """One variant that crashed on one kind of CPU."""

    cpu: str  # fingerprint
    variant: str
    sha256: str  # of its library


def read(path: Path) -> tuple[CrashedVariant, ...]:
    """Return all entries, oldest first; none, with a warning, if the file is invalid."""
    try:
        return _parse(_content(path))
    except FileNotFoundError:
        return ()
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = str(error)
    log.warning(
        "the file of crashed CPU variants is invalid and is ignored",
        extra=fields(file=str(path), reason=reason, hint="remove it; it is created again when needed"),
    )
    return ()


def add(path: Path, entries: Iterable[CrashedVariant]) -> None:
    """Add `entries` to those in the file. Raises KeysError when the file cannot be written."""
    _change(path, add=frozenset(entries))


def withdraw(path: Path, entries: Iterable[CrashedVariant]) -> None:
    """Remove `entries` again. Raises KeysError when the file cannot be written."""
    if path.exists():
        _change(path, remove=frozenset(entries))


def _change(
    path: Path, *, add: frozenset[CrashedVariant] = frozenset(), remove: frozenset[CrashedVariant] = frozenset()
) -> None:
    with exclusive(path, timeout_seconds=_LOCK_SECONDS):
        before = read(path)
        retained = [entry for entry in before if entry not in remove]
        after = [*retained, *sorted(add - set(retained), key=lambda entry: entry.variant)][-_MAX_ENTRIES:]
        if tuple(after) != before:
            document = {"version": 1, "crashed": [asdict(entry) for entry in after]}
            replace(path, json.dumps(document, indent=1).encode() + b"\n")


def _content(path: Path) -> bytes:
    # Non-blocking and without following links: a pipe must not block the engine, and a link must not be read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
    return content


def _parse(content: bytes) -> tuple[CrashedVariant, ...]:
    items = json.loads(content)["crashed"]
    entries = tuple(CrashedVariant(**item) for item in items)
    for entry in entries:
        for text in (entry.cpu, entry.variant, entry.sha256):
            if not isinstance(text, str) or len(text) > _MAX_TEXT:
                raise ValueError("an entry contains something other than short strings")
    return entries[-_MAX_ENTRIES:]
