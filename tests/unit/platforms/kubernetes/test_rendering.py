"""Manifests agree with the programs they launch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.gateway.telemetry import metric_definitions
from llama_gguf.platforms import KubernetesOptions, RenderRequest, render_kubernetes
from llama_gguf.platforms.kubernetes.options import QUEUE_METRIC
from llama_gguf.settings import health_paths
from support.rendering import KEYED, built, pod, settings


def test_the_metric_and_the_probes_exist() -> None:
    assert metric_definitions.QUEUE_DEPTH.name == QUEUE_METRIC
    container = pod(built(settings(auth=KEYED)))["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {
        "startupProbe": health_paths.STARTUP,
        "livenessProbe": health_paths.LIVE,
        "readinessProbe": health_paths.READY,
    }


def test_one_pod_keeps_everything_and_several_share_only_weights() -> None:
    one = built(settings(auth=KEYED))
    assert one["claim-data.yaml"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert one["deployment.yaml"]["spec"]["strategy"] == {"type": "Recreate"}
    several = built(settings(auth=KEYED), KubernetesOptions(min_replicas=2, max_replicas=2))
    assert "claim-data.yaml" not in several
    assert several["claim-models.yaml"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert several["deployment.yaml"]["spec"]["replicas"] == 2
    volumes = {volume["name"]: volume for volume in pod(several)["volumes"]}
    assert "emptyDir" in volumes["data"]


def test_replicas_are_the_autoscalers() -> None:
    for autoscaler in ("hpa", "keda"):
        objects = built(settings(auth=KEYED), KubernetesOptions(max_replicas=4, autoscaler=autoscaler))
        assert "replicas" not in objects["deployment.yaml"]["spec"]
        assert QUEUE_METRIC in json.dumps(objects["autoscaler.yaml"])


def test_secrets_are_referred_to_by_name_and_never_applied() -> None:
    chosen = settings(auth={"bootstrap": {"file": "/run/secrets/first"}}, metrics={"require_key": True})
    objects = built(chosen, request=RenderRequest(secrets=("HF_TOKEN",)))
    assert objects["secret.example.yaml"]["stringData"] == {"HF_TOKEN": "", "first": "", "METRICS_API_KEY": ""}
    assert "secret.example.yaml" not in objects["kustomization.yaml"]["resources"]
    assert "service-monitor.yaml" not in objects["kustomization.yaml"]["resources"]
    environment = pod(objects)["containers"][0]["env"]
    name = "llama-gguf-inference-secrets"
    assert environment == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "HF_TOKEN"}}}]


@pytest.mark.parametrize(
    ("chosen", "options", "code"),
    [
        ({"auth": KEYED}, KubernetesOptions(min_replicas=0), "replicas-range"),
        ({"auth": KEYED}, KubernetesOptions(max_replicas=2), "no-autoscaler"),
        (
            {"auth": KEYED, "metrics": {"enabled": False}},
            KubernetesOptions(max_replicas=2, autoscaler="hpa"),
            "no-queue-metric",
        ),
        ({"auth": KEYED, "health": {"platform": "vast"}}, KubernetesOptions(), "health-contract"),
        ({"auth": {"bootstrap": {"generate": True}}}, KubernetesOptions(2, 2), "key-per-replica"),
        ({"auth": {"bootstrap": {"file": "/data/key"}}}, KubernetesOptions(), "file-not-mountable"),
        ({"auth": {"bootstrap": {"file": "key"}}}, KubernetesOptions(), "file-not-mountable"),
    ],
)
def test_what_kubernetes_cannot_express_is_an_error(
    chosen: dict[str, Any], options: KubernetesOptions, code: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        render_kubernetes(settings(**chosen), RenderRequest(), options)
    assert code in {problem.code for problem in caught.value.problems if problem.severity == "error"}
