"""The environment llama-server gets: a list of what it may see, because everything else could steer or leak.

Each of its arguments can also be given as a variable (LLAMA_ARG_…, AIP_…, HF_TOKEN), and it reads a config file
below XDG_CONFIG_HOME. Secrets meant for us (API keys, hub tokens) are none of its business.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llama_gguf.engine.cpu_libraries import VARIABLE
from llama_gguf.settings.environment_filter import DEVICES, PROXIES, SYSTEM, harmless


def engine_environment(env: Mapping[str, str], run_dir: Path, cpu_variant: str | None = None) -> dict[str, str]:
    """Return what of `env` llama-server gets; its per-user config file is looked for in `run_dir`, where none is.

    Which variant of its CPU code it loads is `cpu_variant`'s to say, never a variable's from outside.
    """
    passed = harmless(env, (*SYSTEM, *DEVICES, *PROXIES))
    passed.pop(VARIABLE, None)
    ours = {"XDG_CONFIG_HOME": str(run_dir), "NO_COLOR": "1"} | ({VARIABLE: cpu_variant} if cpu_variant else {})
    return passed | ours
