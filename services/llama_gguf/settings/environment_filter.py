"""Which variables of the environment may be handed on to programs. Pure: lists of names, and how to apply them.

Lists of what may pass, because nobody can list what must not: a platform puts keys of its own into every container.
A pattern is a name, or its beginning followed by `*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llama_gguf.settings.redaction import is_secret_name

SYSTEM = (
    *("PATH", "HOME", "USER", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "MALLOC_*", "GLIBC_TUNABLES"),
)
"""What any program may need."""
DEVICES = (
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "GGML_*", "HIP_*", "ROCM_*", "ROCR_*", "HSA_*", "VK_*", "ONEAPI_*", "SYCL_*"),
    *("ZE_*", "OMP_*", "GOMP_*", "KMP_*", "OPENBLAS_*", "MKL_*"),
)
"""How llama-server finds and uses processors and GPUs."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""The way to the network. Their addresses may hold a password."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of `patterns` is or begins `name`."""
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)


def harmless(env: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """Return the variables that `patterns` name, but for secrets: NVIDIA_API_KEY is no device."""
    wanted = tuple(patterns)
    return {name: value for name, value in env.items() if matches(name, wanted) and not is_secret_name(name)}
