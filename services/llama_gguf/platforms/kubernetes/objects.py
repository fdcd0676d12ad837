"""The objects around the Deployment: configuration, storage, network, disruption, monitoring, scaling. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from llama_gguf.platforms.container import Launch, data_dir, models_dir
from llama_gguf.platforms.kubernetes.parameters import Values
from llama_gguf.platforms.serialize import Tree

from .options import QUEUE_METRIC, KubernetesOptions
from .workload import labels, object_of, secret_name

METRICS_KEY = "METRICS_API_KEY"
"""Key of the Secret that holds an API key with the scope `metrics`, unless metrics.require_key is false."""


def config_map(values: Values) -> Tree:
    """Return the ConfigMap with config.yaml."""
    return object_of("v1", "ConfigMap", values, "-config", data={"config.yaml": values.config()})


def claims(launch: Launch, options: KubernetesOptions, values: Values) -> dict[str, Tree]:
    """Return the PersistentVolumeClaims by purpose: `data` of a single pod, `models` shared by several."""
    found: dict[str, Tree] = {}
    if not options.replicated:
        found["data"] = _claim("data", "ReadWriteOnce", options, values)
    if options.replicated or not PurePosixPath(models_dir(launch)).is_relative_to(data_dir(launch)):
        mode = "ReadWriteMany" if options.replicated else "ReadWriteOnce"
        found["models"] = _claim("models", mode, options, values)
    return found


def _claim(purpose: str, mode: str, options: KubernetesOptions, values: Values) -> Tree:
    spec: Tree = {
        "accessModes": values.value(f"storage.{purpose}.accessModes", [mode]),
        "resources": {"requests": {"storage": values.value(f"storage.{purpose}.size", f"{options.storage}Gi")}},
    }
    if options.storage_class is not None:
        spec["storageClassName"] = values.value(f"storage.{purpose}.className", options.storage_class)
    return object_of("v1", "PersistentVolumeClaim", values, f"-{purpose}", spec=spec)


def service(values: Values) -> Tree:
    """Return the Service of the API. The health port is for the kubelet only."""
    spec: Tree = {
        "type": values.value("service.type", "ClusterIP"),
        "selector": labels(values),
        "ports": [{"name": "http", "port": values.port("gateway"), "targetPort": "http"}],
    }
    return object_of("v1", "Service", values, spec=spec)


def disruption_budget(values: Values) -> Tree:
    """Return the PodDisruptionBudget: draining nodes evicts one pod at a time, even if it is the only one."""
    spec: Tree = {"maxUnavailable": 1, "selector": {"matchLabels": labels(values)}}
    return object_of("policy/v1", "PodDisruptionBudget", values, spec=spec)


def secret_keys(launch: Launch) -> list[str]:
    """Return the keys of the Secret that the user creates: variables, the file of the first key, the metrics key."""
    names = list(launch.secrets)
    if file := launch.settings.auth.bootstrap.file:
        names.append(PurePosixPath(file).name)
    if launch.settings.metrics.enabled and _metrics_need_key(launch):
        names.append(METRICS_KEY)
    return names


def _metrics_need_key(launch: Launch) -> bool:
    """Return whether Prometheus needs a key: it is in another pod, never a program of the same machine."""
    return launch.settings.auth.enabled and launch.settings.metrics.require_key is not False


def secret_example(launch: Launch, values: Values) -> Tree:
    """Return an example of the Secret, whose values are empty."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(values)},
        "type": "Opaque",
        "stringData": dict.fromkeys(secret_keys(launch), ""),
    }


def service_monitor(launch: Launch, options: KubernetesOptions, values: Values) -> Tree:
    """Return the Prometheus operator's ServiceMonitor, with the label that the operator usually selects by."""
    release = values.value("serviceMonitor.release", options.prometheus_release)
    endpoint: Tree = {"port": "http", "path": "/metrics", "interval": "15s"}
    if _metrics_need_key(launch):
        credentials = {"name": secret_name(values), "key": METRICS_KEY}
        endpoint["authorization"] = {"type": "Bearer", "credentials": credentials}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": values.name(), "labels": labels(values) | {"release": release}},
        "spec": {"selector": {"matchLabels": labels(values)}, "endpoints": [endpoint]},
    }


def horizontal_autoscaler(options: KubernetesOptions, values: Values) -> Tree:
    """Return an HPA on queued requests per pod; it needs an adapter that serves Prometheus metrics as pod metrics."""
    metric = {
        "type": "Pods",
        "pods": {
            "metric": {"name": QUEUE_METRIC},
            "target": {
                "type": "AverageValue",
                "averageValue": values.value("autoscaling.queueTarget", str(options.queue_target)),
            },
        },
    }
    minimum, maximum = _replicas(options, values)
    spec: Tree = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": values.name()},
        "minReplicas": minimum,
        "maxReplicas": maximum,
        "metrics": [metric],
    }
    return object_of("autoscaling/v2", "HorizontalPodAutoscaler", values, spec=spec)


def scaled_object(options: KubernetesOptions, values: Values) -> Tree:
    """Return KEDA's ScaledObject on queued requests per pod. It cannot scale to zero: the queue is in the pods."""
    name = values.name()
    query = type(name)(f'sum({QUEUE_METRIC}{{service="{name}"}})')  # an Expression in a chart
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": values.value("autoscaling.prometheus", options.prometheus),
            "query": query,
            "threshold": values.value("autoscaling.queueTarget", str(options.queue_target)),
        },
    }
    minimum, maximum = _replicas(options, values)
    spec: Tree = {
        "scaleTargetRef": {"name": name},
        "pollingInterval": 15,
        "minReplicaCount": minimum,
        "maxReplicaCount": maximum,
        "triggers": [trigger],
    }
    return object_of("keda.sh/v1alpha1", "ScaledObject", values, spec=spec)


def _replicas(options: KubernetesOptions, values: Values) -> tuple[object, object]:
    """Return minimum and maximum."""
    minimum = values.value("autoscaling.minReplicas", options.min_replicas, former_key="least")
    return minimum, values.value("autoscaling.maxReplicas", options.max_replicas, former_key="most")
