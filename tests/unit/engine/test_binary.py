"""Finding llama-server, and what it says of itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_gguf.engine.binary import (
    Device,
    devices,
    find_binary,
    has_gpu_backend,
    parse_devices,
    version,
    wheel_bin_directory,
)
from llama_gguf.errors import ExitCode, LaunchError
from llama_gguf.settings import Settings
from support.model_box import settings_for


def program(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def settings(root: Path, binary: Path | None = None) -> Settings:
    engine = {"binary": str(binary)} if binary else {}
    return settings_for(root, {"name": "x"}, engine=engine)


def test_the_order_in_which_it_is_looked_for(tmp_path: Path) -> None:
    own = program(tmp_path / "own" / "server")
    wheel = program(tmp_path / "wheel" / "llama-server")
    on_path = program(tmp_path / "path" / "llama-server")
    env = {"PATH": str(on_path.parent)}
    assert find_binary(settings(tmp_path, own), env, wheel_bin=lambda: wheel.parent) == own
    assert find_binary(settings(tmp_path), env, wheel_bin=lambda: wheel.parent) == wheel
    assert find_binary(settings(tmp_path), env, wheel_bin=lambda: tmp_path) == on_path
    with pytest.raises(LaunchError, match="no llama-server found") as caught:
        find_binary(settings(tmp_path), {"PATH": str(tmp_path)}, wheel_bin=lambda: None)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert "make engine" in caught.value.hint


def test_the_wheels_one_is_there(engine_binary: Path) -> None:
    assert wheel_bin_directory() == engine_binary.parent
    assert find_binary(settings(Path("/x")), {}) == engine_binary


def test_a_named_one_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"engine\.binary: .* does not exist"):
        find_binary(settings(tmp_path, tmp_path / "none"), {})


def test_the_execute_bit_is_put_right(tmp_path: Path) -> None:
    path = program(tmp_path / "llama-server", mode=0o644)
    assert find_binary(settings(tmp_path, path), {}) == path
    assert path.stat().st_mode & 0o777 == 0o755


def test_an_execute_bit_that_cannot_be_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "llama-server", mode=0o644)

    def chmod(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", chmod)
    with pytest.raises(LaunchError, match="not executable and cannot be made so") as caught:
        find_binary(settings(tmp_path, path), {})
    assert caught.value.hint == f"run: chmod a+x {path}"


@pytest.mark.engine
def test_what_the_real_one_says(engine_binary: Path) -> None:
    assert "build" in version(engine_binary, os.environ)
    assert devices(engine_binary, os.environ) == ()
    assert not has_gpu_backend(engine_binary)


def test_devices() -> None:
    output = (
        "ggml_cuda_init: found 2 CUDA devices\n"
        "Available devices:\n"
        "  CUDA0: NVIDIA GeForce RTX 4090 (24217 MiB, 23681 MiB free)\n"
        "  Vulkan1: AMD (RADV) X (8192 MiB, 8000 MiB free)\n"
    )
    assert parse_devices(output) == (
        Device("CUDA0", "NVIDIA GeForce RTX 4090", 24217 << 20, 23681 << 20),
        Device("Vulkan1", "AMD (RADV) X", 8192 << 20, 8000 << 20),
    )


def test_gpu_backends_are_seen_by_their_libraries(tmp_path: Path) -> None:
    binary = program(tmp_path / "bin" / "llama-server")
    assert has_gpu_backend(binary)  # linked statically: who knows
    program(tmp_path / "lib" / "libggml-base.so.0")
    program(tmp_path / "lib" / "libggml-cpu-haswell.so")
    assert not has_gpu_backend(binary)
    program(tmp_path / "bin" / "libggml-cuda.so")
    assert has_gpu_backend(binary)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/sh\necho boom >&2\nexit 3\n", "failed with 3: boom"),
        ("#!/bin/sh\nexit 3\n", "failed with 3: no output"),
        ("#!/nonexistent/interpreter\n", "cannot be run: No such file"),
    ],
)
def test_one_that_does_not_run(tmp_path: Path, text: str, message: str) -> None:
    path = program(tmp_path / "llama-server", text)
    with pytest.raises(LaunchError, match=message):
        version(path, os.environ)


def test_one_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_gguf.engine.binary._QUERY_SECONDS", 0.2)
    path = program(tmp_path / "llama-server", "#!/bin/sh\nexec sleep 30\n")
    with pytest.raises(LaunchError, match="did not finish"):
        version(path, os.environ)


def test_one_without_a_version(tmp_path: Path) -> None:
    assert version(program(tmp_path / "llama-server", "#!/bin/sh\necho hello\n"), os.environ) == "unknown"
