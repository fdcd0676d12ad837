"""llama-server's environment: an allowlist, because other variables could change its configuration or leak secrets.

Each of its arguments can also be given as a variable (LLAMA_ARG_…, AIP_…, HF_TOKEN), and it reads a config file
below XDG_CONFIG_HOME. It must not see our secrets (API keys, Hub tokens).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llama_gguf.engine.cpu_libraries import VARIABLE
from llama_gguf.settings.environment_filter import DEVICES, PROXIES, SYSTEM, filter_environment


def engine_environment(env: Mapping[str, str], run_dir: Path, cpu_variant: str | None = None) -> dict[str, str]:
    """Return llama-server's environment, from `env`; it searches its per-user config file in `run_dir`, which has none.

    Only `cpu_variant` selects the variant of its CPU code, never a variable in `env`.
    """
    passed = filter_environment(env, (*SYSTEM, *DEVICES, *PROXIES))
    passed.pop(VARIABLE, None)
    ours = {"XDG_CONFIG_HOME": str(run_dir), "NO_COLOR": "1"} | ({VARIABLE: cpu_variant} if cpu_variant else {})
    return passed | ours
