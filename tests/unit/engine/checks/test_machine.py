"""What the engine of this machine says of the settings before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_gguf.engine.checks.machine import engine_problems
from llama_gguf.rundir.snapshot import Snapshot
from support.model_box import locations_for, settings_for

HELP = "-m,    --model FNAME                    the model"


def server(folder: Path, devices: str = "", *, gpu: bool = True) -> Path:
    """Return a stand-in for llama-server, built for GPUs or not, that lists `devices`."""
    binary = folder / "bin" / "llama-server"
    binary.parent.mkdir()
    (binary.parent / "libggml-base.so").touch()
    if gpu:
        (binary.parent / "libggml-cuda.so").touch()
    binary.write_text(f"#!/bin/sh\n[ $1 = --help ] && echo '{HELP}' || echo '{devices}'\n")
    binary.chmod(0o755)
    return binary


def found(root: Path, config: Path | None = None, **engine: Any) -> list[tuple[str, str, str]]:
    """Return severity, code and place of each problem."""
    snapshot = Snapshot(settings_for(root, {"path": "/m.gguf"}, engine=engine), locations_for(root))
    problems = engine_problems(snapshot, {"PATH": "/bin"}, config or root / "none.ini")
    assert all(problem.hint and problem.message for problem in problems)
    return [(problem.severity, problem.code, problem.path) for problem in problems]


@pytest.mark.parametrize(
    ("gpu_layers", "gpu", "devices", "severity"),
    [
        ("all", True, "", "error"),
        (12, True, "", "error"),
        ("auto", True, "", "warning"),
        (0, True, "", None),
        ("all", True, "  CUDA0: NVIDIA X (100 MiB, 90 MiB free)", None),
        ("all", False, "", "warning"),
        ("auto", False, "", None),
    ],
)
def test_gpus(tmp_path: Path, *, gpu_layers: str | int, gpu: bool, devices: str, severity: str | None) -> None:
    binary = server(tmp_path, devices, gpu=gpu)
    expected = [(severity, "gpu-missing", "engine.gpu_layers")] if severity else []
    assert found(tmp_path, binary=str(binary), gpu_layers=gpu_layers) == expected


def test_a_configuration_file_of_llama_cpps_own(tmp_path: Path) -> None:
    config = tmp_path / "config.ini"
    config.touch()
    binary = str(server(tmp_path, gpu=False))
    assert found(tmp_path, config, binary=binary) == [("error", "foreign-config", "engine")]
    assert found(tmp_path, config, binary=binary, allow_unsafe_args=True) == []


def test_arguments_and_a_pinned_variant(tmp_path: Path) -> None:
    binary = str(server(tmp_path, gpu=False))
    assert found(tmp_path, binary=binary, extra_args=["--frobnicate"], cpu_variant="x64") == [
        ("error", "unknown-argument", "engine.extra_args[0]"),
        ("error", "cpu-variant-unusable", "engine.cpu_variant"),
    ]


def test_without_an_engine_nothing_is_asked(tmp_path: Path) -> None:
    assert found(tmp_path, binary=str(tmp_path / "none"), extra_args=["--frobnicate"], gpu_layers="all") == []


def test_an_engine_that_does_not_run(tmp_path: Path) -> None:
    binary = server(tmp_path)
    binary.write_text("#!/bin/sh\necho no such library >&2\nexit 1\n")
    assert found(tmp_path, binary=str(binary), extra_args=["--frobnicate"], gpu_layers="all") == [
        ("error", "engine-unusable", "engine.binary")
    ]
    binary.write_text("#!/bin/sh\nkill -ILL $$\n")  # with another variant of its CPU code it can still run
    assert found(tmp_path, binary=str(binary), extra_args=["--frobnicate"], gpu_layers="all") == []
