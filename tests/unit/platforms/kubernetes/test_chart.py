"""The chart, with its own values, is the manifests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llama_gguf.platforms import KubernetesOptions, RenderRequest, render_kubernetes
from support.rendering import KEYED, ROOT, manifests, settings

CASES = sorted((ROOT / "tests/golden/render").glob("kubernetes-*/expected")) + sorted(
    (ROOT / "image/deploy/kubernetes").glob("*")
)


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


def pod(objects: dict[str, Any]) -> Any:
    return objects["deployment.yaml"]["spec"]["template"]["spec"]


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
