"""Which platform this box runs on, from the variables that the platforms themselves set. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Platform = Literal["runpod", "kubernetes", "vast", "plain"]


def detect_platform(env: Mapping[str, str]) -> Platform:
    """Return the platform whose contract the health check should follow.

    RunPod first, because its Pods may carry the variables of the cluster below; Vast sets no single sure variable, so
    its container id counts only together with one more of its own.
    """
    if env.get("RUNPOD_ENDPOINT_ID") or env.get("RUNPOD_POD_ID"):
        return "runpod"
    if env.get("CONTAINER_ID") and (env.get("CONTAINER_API_KEY") or any(name.startswith("VAST_") for name in env)):
        return "vast"
    if env.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    return "plain"


def resolve_platform(
    configured: Literal["auto", "runpod", "kubernetes", "vast", "plain"], env: Mapping[str, str]
) -> Platform:
    """Return the configured platform, or the detected one for `auto`."""
    return detect_platform(env) if configured == "auto" else configured
