"""Everything that is rendered satisfies its platform's own schema, and the schemas reject what the platforms reject."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from jsonschema import Draft202012Validator

from llama_gguf.platforms import RenderRequest, RunPodOptions, VastOptions, render_runpod, render_vast
from support.rendering import HF, ROOT, SCHEMAS, rendered_files, schema, settings

JSON_SCHEMAS = {
    "endpoint.json": "runpod-endpoint",
    "pod-template.json": "runpod-template",
    "hub.json": "runpod-hub",
    "tests.json": "runpod-tests",
    "template.json": "vast-template",
}
OWN_KINDS = {"ServiceMonitor": "service-monitor", "ScaledObject": "scaled-object"}
NOT_IN_KUBERNETES = {"Kustomization"}
KUBERNETES_VERSIONS = ("1.29", "1.37")
FILES = list(rendered_files())
DOCUMENTS = [path for path in FILES if path.name in JSON_SCHEMAS]
COMPOSE_FILES = [path for path in FILES if path.name == "compose.yaml"]
MANIFESTS = [path for path in FILES if path.parent.name == "manifests"]


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def check(instance: Any, name: str) -> list[str]:
    return [error.message for error in Draft202012Validator(schema(name)).iter_errors(instance)]


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda file: file.stem)
def test_schema_is_a_schema(file: Path) -> None:
    Draft202012Validator.check_schema(json.loads(file.read_text("utf-8")))


@pytest.mark.parametrize("file", DOCUMENTS, ids=short)
def test_json_satisfies_its_platform(file: Path) -> None:
    assert check(json.loads(file.read_text("utf-8")), JSON_SCHEMAS[file.name]) == []


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=short)
def test_compose_file_satisfies_the_specification(file: Path) -> None:
    assert check(yaml.safe_load(file.read_text("utf-8")), "compose") == []


@pytest.mark.parametrize("file", MANIFESTS, ids=short)
def test_manifest_satisfies_kubernetes(file: Path) -> None:
    tree = yaml.safe_load(file.read_text("utf-8"))
    if tree["kind"] in OWN_KINDS:
        assert check(tree, OWN_KINDS[tree["kind"]]) == []
    elif tree["kind"] not in NOT_IN_KUBERNETES:
        for version in KUBERNETES_VERSIONS:
            kubernetes_validate.validate(tree, version, strict=True)


def test_everything_is_looked_at() -> None:
    kinds = {yaml.safe_load(path.read_text("utf-8"))["kind"] for path in MANIFESTS}
    assert kinds == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Kustomization", "PersistentVolumeClaim",
        "PodDisruptionBudget", "ScaledObject", "Secret", "Service", "ServiceMonitor",
    }  # fmt: skip
    assert {path.name for path in DOCUMENTS} == set(JSON_SCHEMAS)
    known = set(JSON_SCHEMAS.values()) | set(OWN_KINDS.values()) | {"compose"}
    assert {path.stem for path in SCHEMAS.glob("*.json")} == known


def runpod(name: str) -> Any:
    bundle = render_runpod(settings(auth={"bootstrap": {"env": "KEY"}}), RenderRequest(), RunPodOptions())
    return json.loads(bundle.files[name])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("endpoint.json", lambda tree: tree.update(readme="x")),
        ("endpoint.json", lambda tree: tree["gpu"].update(allowedCudaVersions=["13.0"])),
        ("endpoint.json", lambda tree: tree.update(cpu=[{"id": "cpu5c", "vcpuCount": 8}])),
        ("endpoint.json", lambda tree: tree.update(scaling={"type": "QUEUE_DELAY", "queueDelay": 4})),
        ("endpoint.json", lambda tree: tree["env"].update(PORT=8000)),
        ("endpoint.json", lambda tree: tree["env"].update({f"V{i}": "x" for i in range(50)})),
        ("endpoint.json", lambda tree: tree.update(ports=[f"{i}/http" for i in range(11)])),
        ("endpoint.json", lambda tree: tree["workers"].update(idleTimeout=0)),
        ("endpoint.json", lambda tree: tree.pop("image")),
        ("pod-template.json", lambda tree: tree["mounts"].update(network=[])),
        ("pod-template.json", lambda tree: tree["mounts"]["persistent"].update(size=9)),
        ("pod-template.json", lambda tree: tree.update(readme="x")),
        ("hub.json", lambda tree: tree["config"].pop("gpuIds")),
        ("hub.json", lambda tree: tree["config"]["env"].append({"key": "A"})),
        ("tests.json", lambda tree: tree["tests"].clear()),
    ],
)
def test_schema_rejects_what_runpod_rejects(name: str, damage: Callable[[Any], object]) -> None:
    good = runpod(name)
    bad = copy.deepcopy(good)
    damage(bad)
    assert check(good, JSON_SCHEMAS[name]) == []
    assert check(bad, JSON_SCHEMAS[name])


def test_schema_knows_vasts_limits() -> None:
    bundle = render_vast(settings(model=HF), RenderRequest(), VastOptions())
    tree = json.loads(bundle.files["template.json"])
    assert check(tree, "vast-template") == []
    assert check(tree | {"args_str": "x" * 4097}, "vast-template")
    assert check(tree | {"env": "x" * 32_769}, "vast-template")
    assert check(tree | {"volume": "x"}, "vast-template")
