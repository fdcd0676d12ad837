"""The pods of the deployment."""

from __future__ import annotations

from pathlib import Path

from llama_gguf.platforms import KubernetesOptions, RenderRequest
from llama_gguf.settings.loading.load import loads
from support.rendering import KEYED, built, pod, settings


def test_pod_reads_what_was_configured() -> None:
    chosen = settings(auth=KEYED, gateway={"port": 9000}, paths={"data_dir": "/data"})
    objects = built(chosen)
    text = objects["config-map.yaml"]["data"]["config.yaml"]
    assert loads(text, Path("config.yaml"), {}).settings == chosen
    mounts = {mount["name"]: mount["mountPath"] for mount in pod(objects)["containers"][0]["volumeMounts"]}
    assert mounts["config"] == "/etc/llama-gguf"
    assert mounts["data"] == "/data"


def test_pod_is_unprivileged_and_has_time_to_stop() -> None:
    spec = pod(built(settings(auth=KEYED, gateway={"drain_seconds": 60.0}, supervisor={"stop_seconds": 20.0})))
    assert spec["terminationGracePeriodSeconds"] == 90
    assert spec["securityContext"]["runAsUser"] == 10_001
    assert spec["securityContext"]["runAsNonRoot"] is True
    container = spec["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False


def test_gpu_only_where_the_variant_has_one() -> None:
    gpu = pod(built(settings(auth=KEYED), KubernetesOptions(gpu_count=2)))
    assert gpu["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert gpu["tolerations"]
    cpu = pod(built(settings(auth=KEYED, engine={"gpu_layers": 0})))
    assert "limits" not in cpu["containers"][0]["resources"]
    assert cpu["tolerations"] == []


def test_config_in_image_passes_variables_that_kubernetes_does_not_expand() -> None:
    chosen = settings(auth={"keys_file": "/d$(X)/k"}, paths={"data_dir": "/d$(X)"})
    objects = built(settings(auth=KEYED), request=RenderRequest(config_in_image=True))
    assert "config-map.yaml" not in objects
    names = [entry["name"] for entry in pod(objects)["containers"][0]["env"]]
    assert names == ["LLAMA_GGUF__PATHS__DATA_DIR", "KEY"]
    assert "env" not in pod(built(chosen, request=RenderRequest(config_in_image=True)))["containers"][0]
