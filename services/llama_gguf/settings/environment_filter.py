"""Which environment variables are passed to programs. Pure: allow lists of names, and how to apply them.

Allow lists, because a deny list cannot be complete: a platform sets keys of its own in every container.
A pattern is a name, or a prefix followed by `*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llama_gguf.settings.redaction import is_secret_name

SYSTEM = (
    *("PATH", "HOME", "USER", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "MALLOC_*", "GLIBC_TUNABLES"),
)
"""What any program can need."""
DEVICES = (
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "GGML_*", "HIP_*", "ROCM_*", "ROCR_*", "HSA_*", "VK_*", "ONEAPI_*", "SYCL_*"),
    *("ZE_*", "OMP_*", "GOMP_*", "KMP_*", "OPENBLAS_*", "MKL_*"),
)
"""How llama-server finds and uses processors and GPUs."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""Proxies for outgoing HTTP. Their URLs can contain a password."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of `patterns` matches `name`."""
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)


def filter_environment(env: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """Return the variables that match `patterns`, except secrets such as NVIDIA_API_KEY."""
    wanted = tuple(patterns)
    return {name: value for name, value in env.items() if matches(name, wanted) and not is_secret_name(name)}
