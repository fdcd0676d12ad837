"""Options of RunPod's endpoints and Pods that the configuration does not have, and RunPod's limits.

Facts from RunPod's documentation and OpenAPI document of autumn 2026; not tested on RunPod itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llama_gguf.platforms.container import MINIMUM_CUDA, Launch, Variant

MAX_VARIABLES = 50
MIN_VOLUME = 10
RUN_AS_ROOT = ("RUNPOD_POD_USER", "0")
"""RunPod mounts volumes that only root can write to, and has no other field for the user of a container."""
_CUDA_VERSIONS = (*(f"12.{minor}" for minor in range(10)), "13.0", "13.1", "13.2")


@dataclass(frozen=True, slots=True)
class RunPodOptions:
    """Options of RunPod that the configuration does not have. Disk and volume in GB."""

    only: Literal["endpoint", "pod"] | None = None
    pools: tuple[str, ...] = ("AMPERE_24", "ADA_24")
    gpu_count: int = 1
    cpu_flavor: str = "cpu5c"
    vcpu_count: int = 8
    workers_min: int = 0
    workers_max: int = 3
    idle_seconds: int = 10
    flashboot: Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"] = "OFF"
    disk: int = 40
    volume: int = 50
    network_volumes: tuple[str, ...] = ()
    data_centers: tuple[str, ...] = ()
    registry: str | None = None  # id of RunPod's credential for a private registry


def allowed_cuda(variant: Variant) -> list[str]:
    """Return the CUDA versions of hosts that can run `variant`; RunPod compares them exactly."""
    minimum = _number(MINIMUM_CUDA[variant])
    return [version for version in _CUDA_VERSIONS if _number(version) >= minimum]


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def secret_references(launch: Launch) -> dict[str, str]:
    """Return each secret variable with RunPod's reference to the account's secret of that name."""
    return {name: f"{{{{ RUNPOD_SECRET_{name} }}}}" for name in launch.secrets}
