"""What a container may use, read from control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_gguf.engine.cgroup import cgroup_cpus, detect_thread_limit, free_memory_bytes, memory_bytes, thread_limit


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200000 100000\n", 2.0), ("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("1 0", None)],
)
def test_cpus_of_version_2(tmp_path: Path, text: str, expected: float | None) -> None:
    write(tmp_path / "cpu.max", text)
    assert cgroup_cpus(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("400000\n", 4.0), ("-1\n", None)])
def test_cpus_of_version_1(tmp_path: Path, quota: str, expected: float | None) -> None:
    write(tmp_path / "cpu/cpu.cfs_quota_us", quota)
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000\n")
    assert cgroup_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("quota", "allowed", "present", "expected"),
    [
        (None, 64, 64, 0),  # the whole machine: llama-server knows best
        (2.0, 64, 64, 2),
        (1.5, 64, 64, 2),
        (0.25, 64, 64, 1),
        (None, 4, 64, 4),
        (8.0, 4, 64, 4),
        (128.0, 64, 64, 0),
    ],
)
def test_thread_limit(quota: float | None, allowed: int, present: int, expected: int) -> None:
    assert thread_limit(quota=quota, allowed=allowed, present=present) == expected


def test_here() -> None:
    assert 0 <= detect_thread_limit() <= (os.cpu_count() or 1)
    found = memory_bytes()
    assert found is not None
    assert found > 1 << 20


def test_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert memory_bytes(tmp_path, meminfo) is None
    meminfo.write_text("MemTotal:       16000 kB\nMemFree: 1 kB\n")
    assert memory_bytes(tmp_path, meminfo) == 16_384_000
    write(tmp_path / "memory.max", "max\n")
    assert memory_bytes(tmp_path, meminfo) == 16_384_000
    write(tmp_path / "memory.max", "8000000\n")
    assert memory_bytes(tmp_path, meminfo) == 8_000_000
    write(tmp_path / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_bytes(tmp_path, meminfo) == 8_000_000
    write(tmp_path / "memory/memory.limit_in_bytes", "4000000\n")
    assert memory_bytes(tmp_path, meminfo) == 4_000_000


def test_free_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert free_memory_bytes(tmp_path, meminfo) is None
    meminfo.write_text("MemTotal: 16000 kB\nMemFree: 1 kB\nMemAvailable:    9000 kB\n")
    assert free_memory_bytes(tmp_path, meminfo) == 9_216_000
    write(tmp_path / "memory.max", "max\n")
    write(tmp_path / "memory.current", "5000000\n")
    assert free_memory_bytes(tmp_path, meminfo) == 9_216_000
    write(tmp_path / "memory.max", "8000000\n")
    assert free_memory_bytes(tmp_path, meminfo) == 3_000_000
    write(tmp_path / "memory.stat", "anon 4000000\nfile 900000\ninactive_file 600000\nactive_file 200000\n")
    assert free_memory_bytes(tmp_path, meminfo) == 3_800_000, "the kernel gives up pages of files"
    write(tmp_path / "memory.current", "9000000\n")
    assert free_memory_bytes(tmp_path, meminfo) == 0
    write(tmp_path / "memory.current", "nonsense\n")
    assert free_memory_bytes(tmp_path, meminfo) == 9_216_000
    write(tmp_path / "memory/memory.limit_in_bytes", "4000000\n")
    write(tmp_path / "memory/memory.usage_in_bytes", "3000000\n")
    assert free_memory_bytes(tmp_path, meminfo) == 1_000_000
