"""What RunPod can be asked for."""

from __future__ import annotations

from llama_gguf.platforms.runpod.options import allowed_cuda


def test_cuda_versions_begin_at_the_variants() -> None:
    assert allowed_cuda("cuda")[0] == "13.0"
    assert allowed_cuda("cuda12")[0] == "12.0"
    assert "13.0" in allowed_cuda("cuda12")
