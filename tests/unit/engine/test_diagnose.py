"""What golden samples cannot say of diagnoses: what is said of nothing, and that each rule is whole."""

from __future__ import annotations

import pytest

from llama_gguf.engine.diagnose import diagnose, out_of_memory
from llama_gguf.engine.known_failures import SIGNALS


def test_nothing_known() -> None:
    assert diagnose([], None, None).cause == "llama-server ended with no exit code"
    assert diagnose([], 1, None).cause == "llama-server ended with exit code 1"
    assert diagnose([], None, "SIGUSR1").cause == "llama-server ended with SIGUSR1"
    assert diagnose([], 78, None).permanent
    assert diagnose([], 78, None).configuration


@pytest.mark.parametrize(
    ("code", "signal"), [(132, "SIGILL"), (134, "SIGABRT"), (135, "SIGBUS"), (137, "SIGKILL"), (139, "SIGSEGV")]
)
def test_a_shells_way_of_saying_signals(code: int, signal: str) -> None:
    assert diagnose([], code, None) == diagnose([], None, signal) == SIGNALS[signal]


@pytest.mark.parametrize("code", [126, 127])
def test_not_executable(code: int) -> None:
    assert diagnose([], code, None).cause == "llama-server cannot be executed"


def test_json_lines_that_are_none() -> None:
    assert "{broken" in diagnose(["{broken"], 1, None).cause
    assert "[1]" in diagnose(["[1]"], 1, None).cause
    assert "hello" in diagnose(['{"event": "hello"}'], 1, None).cause


def test_a_machine_or_a_build_is_no_fault_of_the_configuration() -> None:
    assert SIGNALS["SIGILL"].permanent
    assert not any(found.configuration for found in SIGNALS.values())
    missing = diagnose([], 127, None)
    assert (missing.permanent, missing.configuration) == (True, False)
    for line in (
        "error while loading shared libraries: libcuda.so.1: no such file",
        "version `GLIBC_2.99' not found",
        "CUDA error: no kernel image is available for execution on the device",
        "failed to open GGUF file 'x' (Too many open files)",
    ):
        found = diagnose([line], 1, None)
        assert (found.permanent, found.configuration) == (True, False), line


LOADS = "I srv    load_model: loading model '/m.gguf'"
LOADED = "I srv  llama_server: model loaded"


@pytest.mark.parametrize(
    ("lines", "code", "signal", "memory"),
    [
        (["E alloc_buffer: allocating 1 MiB on device 0: cudaMalloc failed: out of memory"], 1, None, "device"),
        (["CUDA error: out of memory"], None, "SIGABRT", "device"),
        (["what(): std::bad_alloc"], None, "SIGABRT", "host"),
        (["E llama_init_from_model: failed to allocate buffer for kv cache"], 1, None, "host"),
        ([LOADS, LOADED, "CUDA error: out of memory"], None, "SIGABRT", None),  # a request's, or made up by one
        ([LOADS], None, "SIGKILL", "host"),
        ([LOADS], 137, None, "host"),
        ([LOADS, LOADED], None, "SIGKILL", None),
        ([LOADS, LOADED, "I srv  llama_server: initializing ...", LOADS], None, "SIGKILL", "host"),
        ([], None, "SIGKILL", None),
        (["error: invalid argument: -x"], 1, None, None),
        (["CUDA error: an illegal memory access was encountered"], 1, None, None),
        ([], 0, None, None),
    ],
)
def test_which_memory_was_too_small(lines: list[str], code: int | None, signal: str | None, memory: str | None) -> None:
    assert out_of_memory(lines, code, signal) == memory
