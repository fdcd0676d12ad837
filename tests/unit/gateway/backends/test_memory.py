"""What a process uses, and what the plan's own process says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_gguf.gateway.backends.memory import PlannedMemory, measure, read_plan


def test_a_process_has_memory_of_its_own(tmp_path: Path) -> None:
    device, host = measure(os.getpid())
    assert device == 0 or device > 1 << 20
    assert host > 1 << 20
    assert measure(os.getpid(), tmp_path) == (device, 0)  # no such process


def test_memory_on_a_gpu_is_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{os.getpid()}, 300'\necho '1, 5000'\necho '{os.getpid()}, 20'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert measure(os.getpid())[0] == 320 << 20
    tool.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert measure(os.getpid())[0] == 0


def test_a_plan_is_read() -> None:
    text = (
        b'{"device_bytes": null, "host_bytes": 5, "models": {"engine-a": {"device": 1, "host": 2}}, '
        b'"problems": {"engine-b": "no file"}}'
    )
    assert read_plan(text) == PlannedMemory(None, 5, {"engine-a": (1, 2)}, {"engine-b": "no file"})


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"device_bytes": 1, "host_bytes": 1, "models": 3}'])
def test_another_output_is_no_plan(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        read_plan(text)
