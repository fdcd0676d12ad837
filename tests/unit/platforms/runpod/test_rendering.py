"""RunPod's bodies follow the settings, and RunPod's limits are errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.platforms import RenderRequest, RunPodOptions, render_runpod
from llama_gguf.settings import Settings
from llama_gguf.settings.loading.load import load, loads
from support.rendering import KEYED, ROOT, settings


def rendered(
    chosen: Settings, options: RunPodOptions | None = None, request: RenderRequest | None = None
) -> dict[str, Any]:
    bundle = render_runpod(chosen, request or RenderRequest(), options or RunPodOptions())
    return {name: json.loads(text) for name, text in bundle.files.items()}


def codes(chosen: Settings, options: RunPodOptions | None = None) -> set[str]:
    with pytest.raises(ConfigError) as caught:
        render_runpod(chosen, RenderRequest(), options or RunPodOptions())
    return {problem.code for problem in caught.value.problems if problem.severity == "error"}


def test_a_worker_reads_what_was_configured() -> None:
    chosen = settings(
        gateway={"port": 9000},
        health={"port": 9001, "path": "/up"},
        engine={"slots": 7},
        auth=KEYED,
        logging={"level": "error"},
    )
    variables = rendered(chosen)["endpoint.json"]["env"]
    variables |= {"RUNPOD_ENDPOINT_ID": "x", "KEY": "sk-" + "0" * 43}
    assert loads("", None, variables).settings == chosen


def test_a_pod_reads_what_was_configured_and_keeps_its_data() -> None:
    chosen = settings(gateway={"port": 9000}, auth=KEYED)
    template = rendered(chosen)["pod-template.json"]
    read = loads("", None, template["env"] | {"RUNPOD_POD_ID": "x"}).settings
    assert read.gateway.port == 9000
    assert template["ports"] == ["9000/http"]
    assert template["mounts"]["persistent"]["path"] == read.paths.data_dir == "/workspace"
    assert template["startJupyter"] is template["startSsh"] is False


def test_endpoint_exposes_both_ports_and_scales_on_slots() -> None:
    endpoint = rendered(settings(engine={"slots": 7}, auth=KEYED))["endpoint.json"]
    assert endpoint["ports"] == ["8000/http", "8001/http"]
    assert (endpoint["env"]["PORT"], endpoint["env"]["PORT_HEALTH"]) == ("8000", "8001")
    assert endpoint["scaling"] == {"type": "REQUEST_COUNT", "requestCount": 7}
    limited = rendered(settings(limits={"max_in_flight": 3}, auth=KEYED))["endpoint.json"]
    assert limited["scaling"]["requestCount"] == 3
    models = {"a": {"name": "a"}, "b": {"name": "b", "engine": {"slots": 2}}, "c": {"name": "c", "load": "on_demand"}}
    several = rendered(settings(model={}, models=models, engine={"slots": 7}, auth=KEYED))["endpoint.json"]
    assert several["scaling"]["requestCount"] == 7 + 2 + 7


def test_timeout_is_the_lesser_of_ours_and_runpods() -> None:
    def timeout(seconds: float) -> int:
        chosen = settings(gateway={"timeouts": {"total_seconds": seconds}}, auth=KEYED)
        return int(rendered(chosen)["endpoint.json"]["timeout"])

    assert timeout(100.0) == 100_000
    assert timeout(900.0) == 330_000


def test_cpu_endpoint_and_pod_have_no_gpu_and_no_volume() -> None:
    files = rendered(settings(engine={"gpu_layers": 0}, auth=KEYED), RunPodOptions(vcpu_count=16))
    assert files["endpoint.json"]["cpu"] == [{"id": "cpu5c", "vcpuCount": 16}]
    assert "gpu" not in files["endpoint.json"]
    assert "mounts" not in files["pod-template.json"]
    assert files["hub.json"]["config"]["runsOn"] == "CPU"


def test_network_volume_holds_weights_alone() -> None:
    options = RunPodOptions(only="endpoint", network_volumes=("v",))
    read = loads("", None, rendered(settings(auth=KEYED), options)["endpoint.json"]["env"]).settings
    assert (read.paths.data_dir, read.paths.models_dir) == ("/data", "/runpod-volume/models")
    own = settings(auth=KEYED, paths={"models_dir": "/runpod-volume/gguf"})
    assert (
        loads("", None, rendered(own, options)["endpoint.json"]["env"]).settings.paths.models_dir
        == "/runpod-volume/gguf"
    )


def test_the_serverless_example_keeps_each_workers_data_to_itself_with_and_without_a_volume() -> None:
    example = load(ROOT / "config/examples/runpod-serverless.yaml", {}, ()).settings
    for volumes, models_dir in (((), None), (("v",), "/runpod-volume/models")):
        options = RunPodOptions(only="endpoint", network_volumes=volumes)
        read = loads("", None, rendered(example, options)["endpoint.json"]["env"]).settings
        assert (read.paths.data_dir, read.paths.models_dir) == ("/data", models_dir)


def test_a_pod_whose_data_lies_beside_its_volume_is_warned_of() -> None:
    bundle = render_runpod(
        settings(auth=KEYED, paths={"data_dir": "/data"}), RenderRequest(), RunPodOptions(only="pod")
    )
    assert "data-not-kept" in {problem.code for problem in bundle.warnings}
    kept = render_runpod(
        settings(auth=KEYED, paths={"data_dir": "/workspace/x"}), RenderRequest(), RunPodOptions(only="pod")
    )
    assert "data-not-kept" not in {problem.code for problem in kept.warnings}


def test_a_data_directory_of_ones_own_is_left_alone() -> None:
    own = settings(auth=KEYED, paths={"data_dir": "/runpod-volume/mine"})
    options = RunPodOptions(only="endpoint", network_volumes=("v",), workers_max=1)
    assert loads("", None, rendered(own, options)["endpoint.json"]["env"]).settings.paths == own.paths


def test_secrets_are_references() -> None:
    chosen = settings(auth=KEYED, limits={"store": "redis://x", "store_password_env": "PASSWORD"})
    files = rendered(chosen, request=RenderRequest(secrets=("HF_TOKEN",)))
    for name in ("endpoint.json", "pod-template.json"):
        for secret in ("KEY", "PASSWORD", "HF_TOKEN"):
            assert files[name]["env"][secret] == f"{{{{ RUNPOD_SECRET_{secret} }}}}"
    fixed = {entry["key"] for entry in files["tests.json"]["config"]["env"]}
    assert not fixed & {"KEY", "PASSWORD", "HF_TOKEN"}


def test_only_narrows_files_and_checks() -> None:
    large = settings(auth=KEYED, gateway={"max_body_bytes": 64_000_000})
    assert set(rendered(large, RunPodOptions(only="pod"))) == {"pod-template.json"}
    assert set(rendered(settings(auth=KEYED), RunPodOptions(only="endpoint"))) == {
        "endpoint.json",
        "hub.json",
        "tests.json",
    }
    assert codes(large) == {"body-limit"}


def test_more_than_fifty_variables_are_refused() -> None:
    many = settings(auth=KEYED)
    secrets = tuple(f"S{i}" for i in range(50))
    with pytest.raises(ConfigError) as caught:
        render_runpod(many, RenderRequest(secrets=secrets), RunPodOptions())
    assert "too-many-variables" in {problem.code for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (RunPodOptions(pools=()), "no-pool"),
        (RunPodOptions(workers_min=4), "workers-range"),
        (RunPodOptions(vcpu_count=1), "vcpu-count"),
        (RunPodOptions(vcpu_count=12), "vcpu-count"),
    ],
)
def test_impossible_options_are_refused(options: RunPodOptions, code: str) -> None:
    assert codes(settings(auth=KEYED), options) == {code}
