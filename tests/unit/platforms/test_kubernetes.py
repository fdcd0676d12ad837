"""Manifests and chart are the same objects, and agree with the programs they launch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llama_gguf.errors import ConfigError
from llama_gguf.gateway.telemetry import metric_definitions
from llama_gguf.platforms import KubernetesOptions, RenderRequest, render_kubernetes
from llama_gguf.platforms.kubernetes.options import QUEUE_METRIC
from llama_gguf.settings import Settings, health_paths
from llama_gguf.settings.loading.load import loads
from support.rendering import ROOT, manifests, settings

CASES = sorted((ROOT / "tests/golden/render").glob("kubernetes-*/expected")) + sorted(
    (ROOT / "image/deploy/kubernetes").glob("*")
)
KEYED: dict[str, Any] = {"bootstrap": {"env": "KEY"}}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def evaluated(text: str, values: dict[str, Any], release: str, fixed: dict[str, str]) -> Any:
    """Evaluate the few forms of Helm template that the chart uses; `fixed` has those that compute."""

    def value(match: re.Match[str]) -> str:
        expression = match[1].strip()
        if expression == ".Release.Name":
            return release
        if found := re.fullmatch(r"\.Values\.([\w.]+) \| toJson", expression):
            return json.dumps(at(values, found[1]))
        if found := re.fullmatch(r'dig "(\w+)" \.Values\.([\w.]+) \.Values\.([\w.]+) \| toJson', expression):
            return json.dumps(at(values, found[3]).get(found[1], at(values, found[2])))
        return fixed[expression]

    text = re.sub(r"\{\{- (if \.Values\.serviceMonitor\.enabled|end) \}\}\n", "", text)
    return yaml.safe_load(re.sub(r"\{\{ (.*?) \}\}", value, text))


def at(values: dict[str, Any], path: str) -> Any:
    node: Any = values
    for part in path.split("."):
        node = node[part]
    return node


def computed(objects: dict[str, Any], chart: Path) -> dict[str, str]:
    """Return what the computing expressions of a chart must come to, by the manifests."""
    deployment = objects["deployment.yaml"]
    pod = deployment["spec"]["template"]
    ports = [port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]]
    wanted = {
        'dig "gateway" "port"': str(ports[0]),
        'dig "health" "port"': str(ports[1]),
        "addf": str(pod["spec"]["terminationGracePeriodSeconds"]),
        ".Values.config | sha256sum": pod["metadata"]["annotations"]["checksum/config"],
    }
    text = "".join(path.read_text("utf-8") for path in (chart / "templates").glob("*.yaml"))
    expressions = set(re.findall(r"\{\{ (.*?) \}\}", text))
    return {
        expression: next(result for start, result in wanted.items() if expression.startswith(start))
        for expression in expressions
        if any(expression.startswith(start) for start in wanted)
    }


@pytest.mark.parametrize("case", [case for case in CASES if (case / "chart").is_dir()], ids=short)
def test_chart_with_its_own_values_is_the_manifests(case: Path) -> None:
    objects = manifests(case / "manifests")
    chart = case / "chart"
    values = yaml.safe_load((chart / "values.yaml").read_text("utf-8"))
    release = objects["deployment.yaml"]["metadata"]["name"]
    fixed = computed(objects, chart)
    templates = {path.name: path.read_text("utf-8") for path in (chart / "templates").glob("*.yaml")}
    assert {name: evaluated(text, values, release, fixed) for name, text in templates.items()} == objects


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed; the test above stands in for it")
@pytest.mark.parametrize("case", [case for case in CASES if (case / "chart").is_dir()], ids=short)
def test_real_helm_makes_the_manifests_of_the_chart(case: Path) -> None:
    objects = manifests(case / "manifests")
    release = objects["deployment.yaml"]["metadata"]["name"]
    command = ["helm", "template", release, str(case / "chart"), "--set", "serviceMonitor.enabled=true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    made = [tree for tree in yaml.safe_load_all(done.stdout) if tree]
    assert sorted(made, key=str) == sorted(objects.values(), key=str)


def built(
    chosen: Settings, options: KubernetesOptions | None = None, request: RenderRequest | None = None
) -> dict[str, Any]:
    bundle = render_kubernetes(chosen, request or RenderRequest(), options or KubernetesOptions())
    return {
        Path(name).name: yaml.safe_load(text) for name, text in bundle.files.items() if name.startswith("manifests/")
    }


def pod(objects: dict[str, Any]) -> Any:
    return objects["deployment.yaml"]["spec"]["template"]["spec"]


def test_the_metric_and_the_probes_exist() -> None:
    assert metric_definitions.QUEUE_DEPTH.name == QUEUE_METRIC
    container = pod(built(settings(auth=KEYED)))["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {
        "startupProbe": health_paths.STARTUP,
        "livenessProbe": health_paths.LIVE,
        "readinessProbe": health_paths.READY,
    }


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


def test_gpu_only_where_the_variant_has_one() -> None:
    gpu = pod(built(settings(auth=KEYED), KubernetesOptions(gpu_count=2)))
    assert gpu["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert gpu["tolerations"]
    cpu = pod(built(settings(auth=KEYED, engine={"gpu_layers": 0})))
    assert "limits" not in cpu["containers"][0]["resources"]
    assert cpu["tolerations"] == []


def test_replicas_are_the_autoscalers() -> None:
    for autoscaler in ("hpa", "keda"):
        objects = built(settings(auth=KEYED), KubernetesOptions(max_replicas=4, autoscaler=autoscaler))
        assert "replicas" not in objects["deployment.yaml"]["spec"]
        assert QUEUE_METRIC in json.dumps(objects["autoscaler.yaml"])


@pytest.mark.parametrize(
    ("set_by_installer", "replicas"),
    [
        ({}, (1, 4)),
        ({"minReplicas": 2, "maxReplicas": 8}, (2, 8)),
        ({"least": 2, "most": 8}, (2, 8)),
        ({"least": 0}, (0, 4)),
        ({"least": 2, "minReplicas": 3}, (2, 4)),
    ],
)
@pytest.mark.parametrize(
    ("autoscaler", "fields"),
    [("hpa", ("minReplicas", "maxReplicas")), ("keda", ("minReplicaCount", "maxReplicaCount"))],
)
def test_chart_reads_the_former_names_of_the_replicas_and_warns(
    autoscaler: Any, fields: tuple[str, str], set_by_installer: dict[str, int], replicas: tuple[int, int]
) -> None:
    options = KubernetesOptions(max_replicas=4, autoscaler=autoscaler)
    files = render_kubernetes(settings(auth=KEYED), RenderRequest(), options).files
    values = yaml.safe_load(files["chart/values.yaml"])
    assert {"minReplicas": 1, "maxReplicas": 4}.items() <= values["autoscaling"].items()
    values["autoscaling"] |= set_by_installer  # as Helm merges an installer's values into the chart's
    spec = evaluated(files["chart/templates/autoscaler.yaml"], values, "chat", {})["spec"]
    assert tuple(spec[field] for field in fields) == replicas
    notes = re.sub(
        r'\n\{\{- if hasKey \.Values\.([\w.]+) "(\w+)" \}\}(.*?)\n\{\{- end \}\}',
        lambda found: found[3] if found[2] in at(values, found[1]) else "",
        files["chart/templates/NOTES.txt"],
        flags=re.DOTALL,
    )
    warned = re.findall(r"^WARNING: autoscaling\.(\w+) is now autoscaling\.\w+\.", notes, re.MULTILINE)
    assert warned == [name for name in ("least", "most") if name in set_by_installer]
    assert "{{-" not in notes


def test_secrets_are_referred_to_by_name_and_never_applied() -> None:
    chosen = settings(auth={"bootstrap": {"file": "/run/secrets/first"}}, metrics={"require_key": True})
    objects = built(chosen, request=RenderRequest(secrets=("HF_TOKEN",)))
    assert objects["secret.example.yaml"]["stringData"] == {"HF_TOKEN": "", "first": "", "METRICS_API_KEY": ""}
    assert "secret.example.yaml" not in objects["kustomization.yaml"]["resources"]
    assert "service-monitor.yaml" not in objects["kustomization.yaml"]["resources"]
    environment = pod(objects)["containers"][0]["env"]
    name = "llama-gguf-inference-secrets"
    assert environment == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "HF_TOKEN"}}}]


def test_config_in_image_passes_variables_that_kubernetes_does_not_expand() -> None:
    chosen = settings(auth={"keys_file": "/d$(X)/k"}, paths={"data_dir": "/d$(X)"})
    objects = built(settings(auth=KEYED), request=RenderRequest(config_in_image=True))
    assert "config-map.yaml" not in objects
    names = [entry["name"] for entry in pod(objects)["containers"][0]["env"]]
    assert names == ["LLAMA_GGUF__PATHS__DATA_DIR", "KEY"]
    assert "env" not in pod(built(chosen, request=RenderRequest(config_in_image=True)))["containers"][0]


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
