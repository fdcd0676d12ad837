"""The CUDA variants, as far as a machine without a GPU can tell."""

from __future__ import annotations

from typing import Any

import pytest
from image.engine import recipe

from support.podman import Container, container


@pytest.fixture(autouse=True)
def _only_cuda(variant: recipe.Variant) -> None:
    if not variant.cuda:
        pytest.skip("not a CUDA variant")


def test_asks_the_nvidia_runtime_for_what_it_needs(facts: dict[str, Any]) -> None:
    env = dict(entry.split("=", 1) for entry in facts["Config"]["Env"])
    assert env["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert env["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_brings_the_runtime_libraries_and_no_driver_and_no_compatibility_library(still: Container) -> None:
    found = still.exec(
        "find", "/", "-xdev", "-name", "libcuda.so*", "-o", "-xdev", "-name", "*compat*cuda*", check=False
    )
    assert [line for line in found.splitlines() if line.startswith("/")] == []
    names = still.exec("ls", "/opt/llama-gguf/engine/lib").split()
    assert {"libcudart", "libcublas", "libcublasLt"} <= {name.partition(".so")[0] for name in names}


def test_a_missing_driver_is_told_clearly_when_layers_must_be_on_the_gpu(image: str, tiny_mount: str) -> None:
    options = [
        tiny_mount,
        "--env=LLAMA_GGUF__MODEL__PATH=/models/tiny.gguf",
        "--env=LLAMA_GGUF__ENGINE__GPU_LAYERS=all",
        "--env=LLAMA_GGUF__AUTH__BOOTSTRAP__GENERATE=true",
    ]
    with container(image, options=options) as box:
        assert box.wait_end(90) != 0
        logs = box.logs().lower()
        assert "gpu" in logs
        assert "driver" in logs
        assert "traceback" not in logs
