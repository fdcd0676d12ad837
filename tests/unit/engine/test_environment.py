"""What llama-server may see of our environment."""

from __future__ import annotations

from pathlib import Path

from llama_gguf.engine.environment import engine_environment


def test_only_what_it_needs_gets_through() -> None:
    needed = {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
        "CUDA_VISIBLE_DEVICES": "0",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1",
        "OMP_NUM_THREADS": "4",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    steering = {
        "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_ARG_TOOLS": "all",
        "LLAMA_API_KEY": "x",
        "LLAMA_SERVER_SLOTS_DEBUG": "1",
        "LLAMA_SERVER_CHILD_MODE": "download",
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": "80",
        "MTMD_BACKEND_DEVICE": "CPU",
        "XDG_CONFIG_HOME": "/home/x/.config",
    }
    secrets = {
        "HF_TOKEN": "hf_x",
        "API_KEY": "k",
        "NVIDIA_API_KEY": "n",
        "AWS_SECRET_ACCESS_KEY": "s",
        "LLAMA_GGUF__AUTH__ENABLED": "true",
    }
    found = engine_environment(needed | steering | secrets, Path("/run/x"))
    assert found == needed | {"XDG_CONFIG_HOME": "/run/x", "NO_COLOR": "1"}


def test_the_cpu_variant_is_ours_to_say() -> None:
    outside = {"GGML_CPU_VARIANT": "zen4"}
    assert "GGML_CPU_VARIANT" not in engine_environment(outside, Path("/run/x"))
    assert engine_environment(outside, Path("/run/x"), "haswell")["GGML_CPU_VARIANT"] == "haswell"
