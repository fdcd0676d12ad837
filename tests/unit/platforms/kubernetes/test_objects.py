"""Volumes and secrets, as Kubernetes' objects."""

from __future__ import annotations

from llama_gguf.platforms import KubernetesOptions, RenderRequest
from support.rendering import KEYED, built, pod, settings


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


def test_secrets_are_referred_to_by_name_and_never_applied() -> None:
    chosen = settings(auth={"bootstrap": {"file": "/run/secrets/first"}}, metrics={"require_key": True})
    objects = built(chosen, request=RenderRequest(secrets=("HF_TOKEN",)))
    assert objects["secret.example.yaml"]["stringData"] == {"HF_TOKEN": "", "first": "", "METRICS_API_KEY": ""}
    assert "secret.example.yaml" not in objects["kustomization.yaml"]["resources"]
    assert "service-monitor.yaml" not in objects["kustomization.yaml"]["resources"]
    environment = pod(objects)["containers"][0]["env"]
    name = "llama-gguf-inference-secrets"
    assert environment == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "HF_TOKEN"}}}]
