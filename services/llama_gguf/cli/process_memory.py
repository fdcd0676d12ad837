"""A process's main memory: anonymous pages, which can only be swapped, and file-backed ones, which can be dropped.

Weights that llama.cpp maps are file-backed; weights that it repacks for the CPU are anonymous.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^(Rss\w+|VmSwap):\s*(\d+) kB$", re.MULTILINE)
_NAMES = ("RssAnon", "RssFile", "RssShmem", "VmSwap")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Resident bytes by kind, and swapped ones."""

    anonymous: int
    mapped: int
    swapped: int


def read_process_memory(pid: int, proc: Path = Path("/proc")) -> ProcessMemory | None:
    """Return the memory of a process; None if it has exited or the kernel does not report it."""
    try:
        found = dict(_LINE.findall((proc / str(pid) / "status").read_text()))
    except OSError:
        return None
    if "RssAnon" not in found:
        return None
    anonymous, mapped, shared, swapped = (int(found.get(name, 0)) * 1024 for name in _NAMES)
    return ProcessMemory(anonymous + shared, mapped, swapped)
