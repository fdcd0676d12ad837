"""Options of the Kubernetes objects that the configuration does not have, and names that others in the cluster use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QUEUE_METRIC = "llama_gguf_queue_depth"
"""Gauge of queued requests on the gateway's /metrics, on which the autoscalers scale."""
CONFIG_FOLDER = "/etc/llama-gguf"
UID = 10_001
DEREGISTER_SECONDS = 5
"""Delay before SIGTERM in which the cluster's proxies remove this pod from the Service."""


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """Options of the Kubernetes objects that the configuration does not have. Storage in GiB."""

    min_replicas: int = 1
    max_replicas: int = 1
    autoscaler: Literal["none", "hpa", "keda"] = "none"
    queue_target: int = 4  # queued requests per replica above which another one is added
    prometheus: str = "http://prometheus-operated.monitoring.svc:9090"  # server that KEDA queries for the queue's depth
    prometheus_release: str = "prometheus"  # label by which the Prometheus operator selects ServiceMonitors
    storage: int = 50
    storage_class: str | None = None
    gpu_count: int = 1
    cpu_request: str = "2"
    memory_request: str | None = None  # None = what memory.host_mib lets models use and some more, else 4Gi
    startup_minutes: int = 120  # maximum time for download and load of the model before the container is restarted

    @property
    def replicated(self) -> bool:
        """Whether more than one pod can run, so that they must not share a directory they write to."""
        return self.max_replicas > 1
