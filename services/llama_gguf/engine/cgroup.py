"""The limits of a container: CPU quota and memory limit, which llama-server itself does not read."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_NO_LIMIT_BYTES = 1 << 60  # cgroup v1 expresses "no limit" as a number near 2^63


def cgroup_cpus(root: Path = _CGROUP) -> float | None:
    """Return the CPU quota of this cgroup in CPUs, or None if there is no limit (cgroup v2, else v1)."""
    words = _words(root / "cpu.max") or _words(root / "cpu/cpu.cfs_quota_us") + _words(root / "cpu/cpu.cfs_period_us")
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit() or int(words[1]) == 0:
        return None  # "max", or -1
    return int(words[0]) / int(words[1])


def thread_limit(*, quota: float | None, allowed: int, present: int) -> int:
    """Return the number of threads to use, or 0 if llama-server's own default is right.

    Its default is one thread per physical core of the machine; under a quota they would wait for one another.
    """
    limit = min(allowed, math.ceil(quota) if quota else allowed)
    return max(1, limit) if limit < present else 0


def detect_thread_limit() -> int:
    """Return `thread_limit` for this process."""
    return thread_limit(quota=cgroup_cpus(), allowed=len(os.sched_getaffinity(0)), present=os.cpu_count() or 1)


def memory_bytes(root: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Return how much main memory this process can use: the machine's, or the cgroup's limit if that is lower."""
    found = []
    for path in (root / "memory.max", root / "memory/memory.limit_in_bytes"):
        words = _words(path)
        if words and words[0].isdigit() and int(words[0]) < _NO_LIMIT_BYTES:
            found.append(int(words[0]))
    if match := re.search(r"^MemTotal:\s+(\d+) kB", read_or_empty(meminfo), re.MULTILINE):
        found.append(int(match[1]) * 1024)
    return min(found, default=None)


def free_memory_bytes(root: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Return how much of `memory_bytes` is free now; pages of files that can be read again count as free."""
    found = []
    for folder, limit, usage in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, used = (words[0] if (words := _words(folder / name)) else "" for name in (limit, usage))
        if most.isdigit() and used.isdigit() and int(most) < _NO_LIMIT_BYTES:
            cached = re.findall(r"^(?:in)?active_file (\d+)$", read_or_empty(folder / "memory.stat"), re.MULTILINE)
            found.append(max(0, int(most) - int(used) + sum(map(int, cached))))
    if match := re.search(r"^MemAvailable:\s+(\d+) kB", read_or_empty(meminfo), re.MULTILINE):
        found.append(int(match[1]) * 1024)
    return min(found, default=None)


def read_or_empty(path: Path) -> str:
    """Return the text of one of the kernel's files; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return read_or_empty(path).split()
