"""The environment llama-server gets: a list of what it may see, because everything else could steer or leak.

Each of its arguments can also be given as a variable (LLAMA_ARG_…, AIP_…, HF_TOKEN), and it reads a config file
below XDG_CONFIG_HOME. Secrets meant for us (API keys, hub tokens) are none of its business.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path

_PASSED = (
    *("PATH", "HOME", "USER", "LANG", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *(
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ),
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "GGML_*", "HIP_*", "ROCR_*", "HSA_*", "VK_*", "ONEAPI_*", "SYCL_*", "ZE_*"),
    *("OMP_*", "GOMP_*", "KMP_*", "OPENBLAS_*", "MKL_*", "MALLOC_*", "GLIBC_TUNABLES"),
)


def engine_environment(env: Mapping[str, str], run_dir: Path) -> dict[str, str]:
    """Return what of `env` llama-server gets; its per-user config file is looked for in `run_dir`, where none is."""
    passed = {name: value for name, value in env.items() if any(fnmatch.fnmatchcase(name, p) for p in _PASSED)}
    return passed | {"XDG_CONFIG_HOME": str(run_dir), "NO_COLOR": "1"}
