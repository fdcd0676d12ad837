"""Every code a rendering problem may have, and what it means: the contract of `render --json` and of exit code 78.

A test holds this against the code that reports them, and the reference lists it.
"""

from __future__ import annotations

from collections.abc import Mapping

RENDER_CODES: Mapping[str, str] = {
    # on every platform
    "bad-name": "The name does not fit every platform's rules for names.",
    "variant-without-gpu": "The cpu image is to put layers on a GPU.",
    "loopback-host": "A server would listen where nobody outside the container can reach it.",
    "first-key-variable": "Nothing gives the first API key, so the spec takes it from a variable (warning).",
    "path-in-image": "A file lies on no volume of the spec, so the image must hold it (warning).",
    "path-not-writable": "A path lies where the container may not write, or on no volume of the spec.",
    "health-contract": "health.platform is fixed to another platform's contract.",
    "file-not-mountable": "The platform cannot mount the secret file at its path.",
    # several containers from one spec
    "key-per-worker": "Every RunPod worker would generate a first key of its own.",
    "key-per-replica": "Every pod of Kubernetes would generate a first key of its own.",
    "shared-data-dir": "Several workers would write the same keys, usage and logs.",
    "limits-per-worker": "Each RunPod worker counts requests and tokens for itself (warning).",
    "limits-per-replica": "Each pod of Kubernetes counts requests and tokens for itself (warning).",
    # RunPod
    "no-pool": "A GPU endpoint names no GPU pool.",
    "workers-range": "The least number of workers is more than the most.",
    "vcpu-count": "RunPod sells vCPUs in powers of two, from 2 on.",
    "data-not-kept": "RunPod's Pod would lose keys, usage and logs, because they are not on its volume (warning).",
    "runs-as-root": "RunPod's volumes belong to root, so the container runs as root (warning).",
    "too-many-variables": "More variables than RunPod takes.",
    "body-limit": "Larger bodies are allowed than RunPod's load balancer takes.",
    "processing-limit": "Requests may take longer than RunPod's load balancer lets them (warning).",
    # Vast.ai
    "arguments-too-long": "The arguments are longer than Vast takes.",
    "variable-too-long": "One variable is longer than Vast takes.",
    "variables-too-long": "All variables together are longer than Vast takes.",
    "variable-unquotable": "A value mixes quotation marks so that Vast would read another one.",
    # Compose
    "published-on-loopback": "Without API keys the port is published on this machine only (warning).",
    "path-not-mountable": "A file lies where its folder cannot be mounted at the same place.",
    # Kubernetes
    "replicas-range": "The range of replicas is empty or starts at zero.",
    "no-autoscaler": "A range of replicas has no autoscaler.",
    "no-queue-metric": "The autoscaler's metric is disabled.",
}
