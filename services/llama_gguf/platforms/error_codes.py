"""Every code of a rendering problem, and what it means: the contract of `render --json` and of exit code 78."""

from __future__ import annotations

from collections.abc import Mapping

RENDER_CODES: Mapping[str, str] = {
    # on every platform
    "bad-name": "The name is not valid on every platform.",
    "variant-without-gpu": "The cpu image cannot put layers on a GPU.",
    "loopback-host": "A server would listen on loopback, which cannot be reached from outside the container.",
    "first-key-variable": "No source is set for the first API key, so the spec reads it from a variable (warning).",
    "path-in-image": "A file is on no volume of the spec, so the image must contain it (warning).",
    "path-not-writable": "The container cannot write to a path, or the path is on no volume of the spec.",
    "disk-for-several": "Several models are downloaded to a disk of the size for one (warning).",
    "health-contract": "health.platform is set to another platform.",
    "file-not-mountable": "The platform cannot mount the secret file at its path.",
    # several containers from one spec
    "key-per-worker": "Every RunPod worker would generate its own first key.",
    "key-per-replica": "Every Kubernetes pod would generate its own first key.",
    "shared-data-dir": "Several workers would write the same keys, usage and logs.",
    "limits-per-worker": "Each RunPod worker counts requests and tokens separately (warning).",
    "limits-per-replica": "Each Kubernetes pod counts requests and tokens separately (warning).",
    # RunPod
    "no-pool": "A GPU endpoint has no GPU pool.",
    "workers-range": "--workers-min is more than --workers-max.",
    "vcpu-count": "RunPod sells vCPUs in powers of two, starting at 2.",
    "data-not-kept": "A RunPod Pod would lose keys, usage and logs, because they are not on its volume (warning).",
    "runs-as-root": "RunPod's volumes belong to root, so the container runs as root (warning).",
    "too-many-variables": "More variables than RunPod accepts.",
    "body-limit": "gateway.max_body_bytes is above the limit of RunPod's load balancer.",
    "processing-limit": "Requests can take longer than RunPod's load balancer allows (warning).",
    # Vast.ai
    "arguments-too-long": "The arguments are longer than Vast accepts.",
    "variable-too-long": "One variable is longer than Vast accepts.",
    "variables-too-long": "All variables together are longer than Vast accepts.",
    "variable-unquotable": "A value mixes quotation marks in a way that Vast cannot parse.",
    # Compose
    "published-on-loopback": "Without API keys the port is published on 127.0.0.1 only (warning).",
    "path-not-mountable": "The directory of a file cannot be mounted at the same path.",
    # Kubernetes
    "replicas-range": "The range of replicas is empty or starts at zero.",
    "no-autoscaler": "A range of replicas has no autoscaler.",
    "no-queue-metric": "The autoscaler's metric is disabled.",
}
