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


def test_replicas_are_the_autoscalers() -> None:
    for autoscaler in ("hpa", "keda"):
        objects = built(settings(auth=KEYED), KubernetesOptions(max_replicas=4, autoscaler=autoscaler))
        assert "replicas" not in objects["deployment.yaml"]["spec"]
        assert QUEUE_METRIC in json.dumps(objects["autoscaler.yaml"])


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
