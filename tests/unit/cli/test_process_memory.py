"""The memory of a process, as the kernel tells it."""

from __future__ import annotations

import os
from pathlib import Path

from llama_gguf.cli.process_memory import ProcessMemory, read_process_memory


def test_memory_that_can_be_dropped_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    kernel = "VmRSS:\t 900 kB\nRssAnon:\t 4122624 kB\nRssFile:\t  288768 kB\nRssShmem:\t 1024 kB\nVmSwap:\t 51200 kB\n"
    (tmp_path / "7/status").write_text(kernel)
    assert read_process_memory(7, tmp_path) == ProcessMemory(4027 << 20, 282 << 20, 50 << 20)
    assert read_process_memory(os.getpid())


def test_what_the_kernel_does_not_tell_is_unknown(tmp_path: Path) -> None:
    assert read_process_memory(7, tmp_path) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text("State:\tZ (zombie)\n")
    assert read_process_memory(7, tmp_path) is None
