"""The platform that hosts this instance: how to detect it, and its limits on the configuration. Pure.

RunPod's facts are from its documentation of autumn 2026. `platforms` owns each one's launch specs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Platform = Literal["runpod", "kubernetes", "vast", "plain"]
PlatformSetting = Literal["auto", Platform]

RUNPOD_ENDPOINT_ID = "RUNPOD_ENDPOINT_ID"
"""Set only in the workers of a serverless endpoint."""
RUNPOD_POD_ID = "RUNPOD_POD_ID"
VAST_CONTAINER_ID = "CONTAINER_ID"
VAST_API_KEY = "CONTAINER_API_KEY"
KUBERNETES_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"

INSTANCE_VARIABLES: Mapping[Platform, str] = {"runpod": RUNPOD_POD_ID, "vast": VAST_CONTAINER_ID}
"""Platform -> the variable that holds the id of this instance."""

RUNPOD_VARIABLES: Mapping[str, tuple[str, str]] = {
    "PORT": ("gateway", "port"),
    "PORT_HEALTH": ("health", "port"),
    "HEALTH_CHECK_PATH": ("health", "path"),
}
"""Variable of a serverless endpoint, which RunPod's load balancer follows too -> the setting it overrides."""
RUNPOD_MAX_REQUEST_SECONDS = 330
"""A load-balancing endpoint aborts a request after 5.5 minutes."""
RUNPOD_MAX_BODY_BYTES = 30_000_000
RUNPOD_NETWORK_VOLUME = "/runpod-volume"
RUNPOD_POD_VOLUME = "/workspace"
RUNPOD_MODEL_CACHE = f"{RUNPOD_NETWORK_VOLUME}/huggingface-cache/hub"
"""Directory of the models that RunPod has cached for an endpoint, in the layout of Hugging Face's cache."""


def detect_platform(env: Mapping[str, str]) -> Platform:
    """Return the platform whose health-check contract applies.

    RunPod first, because its Pods can have the variables of the cluster below. Vast has no single unambiguous
    variable, so its container id counts only together with another one.
    """
    if env.get(RUNPOD_ENDPOINT_ID) or env.get(RUNPOD_POD_ID):
        return "runpod"
    if env.get(VAST_CONTAINER_ID) and (env.get(VAST_API_KEY) or any(name.startswith("VAST_") for name in env)):
        return "vast"
    if env.get(KUBERNETES_SERVICE_HOST):
        return "kubernetes"
    return "plain"


def resolve_platform(configured: PlatformSetting, env: Mapping[str, str]) -> Platform:
    """Return the configured platform, or the detected one for `auto`."""
    return detect_platform(env) if configured == "auto" else configured
