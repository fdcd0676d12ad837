"""What Kubernetes wants to know that no configuration says, and names that other parts of the cluster meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QUEUE_METRIC = "llama_gguf_queue_depth"
"""Gauge of waiting requests on the gateway's /metrics; what the autoscalers look at."""
CONFIG_FOLDER = "/etc/llama-gguf"
UID = 10_001
DEREGISTER_SECONDS = 5
"""Pause before SIGTERM in which the cluster's proxies learn that this pod takes no more requests."""

Autoscaler = Literal["none", "hpa", "keda"]


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """What Kubernetes wants to know that no configuration says. Storage in GiB."""

    min_replicas: int = 1
    max_replicas: int = 1
    autoscaler: Autoscaler = "none"
    queue_target: int = 4  # waiting requests a replica at which another one is started
    prometheus: str = "http://prometheus-operated.monitoring.svc:9090"  # where KEDA asks for the queue's depth
    prometheus_release: str = "prometheus"  # label by which the Prometheus operator finds ServiceMonitors
    storage: int = 50
    storage_class: str | None = None
    gpu_count: int = 1
    cpu_request: str = "2"
    memory_request: str = "4Gi"
    startup_minutes: int = 120  # longest download and load of the model before the pod is restarted

    @property
    def replicated(self) -> bool:
        """Whether more than one pod may run, so that they cannot share a directory they write."""
        return self.max_replicas > 1
