"""One configuration as RunPod's files, and what RunPod cannot express of it.

Owns the checks of RunPod's limits and the variables of each kind of container. An endpoint's workers share only a
network volume, so only weights are stored there: several writers would corrupt keys, usage and logs.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_gguf.platforms.container import Launch, RenderRequest, is_below, prepare, warn_of_room
from llama_gguf.platforms.environment import Patch
from llama_gguf.platforms.mounts import Mounts, check_mounts
from llama_gguf.platforms.serialize import to_json
from llama_gguf.settings import Settings
from llama_gguf.settings.locations import DATA_DIR, MODELS_DIR
from llama_gguf.settings.platform import (
    RUNPOD_MAX_BODY_BYTES,
    RUNPOD_MAX_REQUEST_SECONDS,
    RUNPOD_NETWORK_VOLUME,
    RUNPOD_POD_VOLUME,
    RUNPOD_VARIABLES,
)

from ..bundle import Bundle, Findings
from . import options as facts
from .api import endpoint, pod_template
from .hub import hub, hub_tests
from .options import RunPodOptions, secret_references

_SET_BY_RUNPOD_VARIABLES = frozenset(f"{section}.{name}" for section, name in RUNPOD_VARIABLES.values())


def render(settings: Settings, request: RenderRequest, options: RunPodOptions) -> Bundle:
    """Return endpoint.json, hub.json, tests.json and pod-template.json, or those that `options.only` selects."""
    findings = Findings("RunPod")
    _check_options(options, findings)
    if settings.auth.bootstrap.file:
        findings.error(
            "file-not-mountable",
            "auth.bootstrap.file",
            f"RunPod cannot mount the secret file {settings.auth.bootstrap.file}",
            "set auth.bootstrap.env instead; RunPod sets the variable from its secrets",
        )
    files: dict[str, str] = {}
    if options.only != "pod":
        files |= _endpoint_files(settings, request, options, findings)
    if options.only != "endpoint":
        files |= _pod_files(settings, request, options, findings)
    return findings.finish(files)


def _endpoint_files(
    settings: Settings, request: RenderRequest, options: RunPodOptions, findings: Findings
) -> dict[str, str]:
    _check_endpoint(settings, options, findings)
    patch: Patch = {}
    mounts = Mounts("endpoint.json")
    if options.network_volumes:
        mounts = Mounts("endpoint.json", persistent=(RUNPOD_NETWORK_VOLUME,))
        patch = _weights_on_the_volume(settings)
        _warn_root(findings, "endpoint.json")
    else:
        warn_of_room(settings, "--disk", options.disk, RunPodOptions().disk, findings)
    launch = prepare(settings, request, findings, patch)
    check_mounts(launch, mounts, findings)
    variables = _endpoint_variables(launch, options)
    _check_count(variables, "endpoint.json", findings)
    return {
        "endpoint.json": to_json(endpoint(launch, options, variables)),
        "hub.json": to_json(hub(launch, options, variables)),
        "tests.json": to_json(hub_tests(launch, options, variables)),
    }


def _weights_on_the_volume(settings: Settings) -> Patch:
    """Return the patch by which the network volume holds the weights, but nothing that each worker writes."""
    data_dir = settings.paths.data_dir
    patch: Patch = {"paths.data_dir": DATA_DIR} if data_dir == "auto" else {}
    if settings.paths.models_dir is None and not is_below(data_dir, [RUNPOD_NETWORK_VOLUME]):
        patch = {**patch, "paths.models_dir": f"{RUNPOD_NETWORK_VOLUME}/{MODELS_DIR}"}
    return patch


def _endpoint_variables(launch: Launch, options: RunPodOptions) -> dict[str, str]:
    settings = launch.settings.model_dump()
    runpod_variables = {name: str(settings[section][key]) for name, (section, key) in RUNPOD_VARIABLES.items()}
    root = dict([facts.RUN_AS_ROOT]) if options.network_volumes else {}
    return runpod_variables | root | launch.variables(without=_SET_BY_RUNPOD_VARIABLES) | secret_references(launch)


def _pod_files(
    settings: Settings, request: RenderRequest, options: RunPodOptions, findings: Findings
) -> dict[str, str]:
    unpatched = prepare(settings, request, Findings("RunPod"), {})
    patch: Patch = {}
    if unpatched.gpu and settings.paths.data_dir == "auto":
        patch = {"paths.data_dir": RUNPOD_POD_VOLUME}
    launch = prepare(settings, request, findings, patch)
    mounts = Mounts("pod-template.json", persistent=(RUNPOD_POD_VOLUME,) if launch.gpu else ())
    if launch.gpu and is_below(launch.settings.paths.data_dir, mounts.ephemeral):
        findings.warn(
            "data-not-kept",
            "paths.data_dir",
            f"pod-template.json: paths.data_dir is {launch.settings.paths.data_dir}, which is deleted with the Pod",
            f"remove the setting to store keys, usage and weights on the Pod's volume at {RUNPOD_POD_VOLUME}",
        )
    check_mounts(launch, mounts, findings)
    root: dict[str, str] = {}
    if launch.gpu:
        root = dict([facts.RUN_AS_ROOT])
        _warn_root(findings, "pod-template.json")
        warn_of_room(settings, "--volume", options.volume, RunPodOptions().volume, findings)
    else:
        warn_of_room(settings, "--disk", options.disk, RunPodOptions().disk, findings)
    variables = root | launch.variables() | secret_references(launch)
    _check_count(variables, "pod-template.json", findings)
    return {"pod-template.json": to_json(pod_template(launch, options, variables))}


def _warn_root(findings: Findings, file: str) -> None:
    findings.warn(
        "runs-as-root",
        "",
        f"{file}: RunPod's volumes belong to root, so the container runs as root ({'='.join(facts.RUN_AS_ROOT)})",
        "to run unprivileged, make the volume writable for uid 10001 and remove the variable",
    )


def _check_count(variables: Mapping[str, str], file: str, findings: Findings) -> None:
    if len(variables) > facts.MAX_VARIABLES:
        findings.error(
            "too-many-variables",
            "",
            f"{file}: {len(variables)} variables; RunPod accepts at most {facts.MAX_VARIABLES}",
            "put config.yaml into an image of your own (COPY config.yaml /etc/llama-gguf/config.yaml) and render with "
            "--config-in-image",
        )


def _check_options(options: RunPodOptions, findings: Findings) -> None:
    if not options.pools:
        findings.error("no-pool", "", "an endpoint needs at least one GPU pool", "pass --pool, as in --pool ADA_24")
    if options.workers_min > options.workers_max:
        findings.error(
            "workers-range",
            "",
            f"--workers-min {options.workers_min} is more than --workers-max {options.workers_max}",
            "raise --workers-max or lower --workers-min",
        )
    if options.vcpu_count < 2 or options.vcpu_count & (options.vcpu_count - 1):
        findings.error("vcpu-count", "", f"{options.vcpu_count} vCPUs: RunPod sells 2, 4, 8, …", "pass --vcpus 8")


def _check_endpoint(settings: Settings, options: RunPodOptions, findings: Findings) -> None:
    if settings.health.platform not in ("auto", "runpod"):
        findings.error(
            "health-contract",
            "health.platform",
            f"health.platform is {settings.health.platform}, but RunPod expects 204 while the model loads",
            "set health.platform: auto, or render the Pod alone with --only pod",
        )
    if settings.gateway.max_body_bytes > RUNPOD_MAX_BODY_BYTES:
        findings.error(
            "body-limit",
            "gateway.max_body_bytes",
            f"gateway.max_body_bytes is {settings.gateway.max_body_bytes}; RunPod's load balancer accepts at most "
            f"{RUNPOD_MAX_BODY_BYTES}",
            f"lower it to {RUNPOD_MAX_BODY_BYTES}, or render the Pod alone with --only pod",
        )
    timeouts = settings.gateway.timeouts
    if timeouts.total_seconds > RUNPOD_MAX_REQUEST_SECONDS and "total_seconds" in timeouts.model_fields_set:
        findings.warn(
            "processing-limit",
            "gateway.timeouts.total_seconds",
            f"RunPod's load balancer aborts every request after {RUNPOD_MAX_REQUEST_SECONDS} seconds",
            "use a Pod or another platform for longer responses, or limit their tokens",
        )
    if settings.auth.enabled and settings.auth.bootstrap.generate and not settings.auth.bootstrap.env:
        findings.error(
            "key-per-worker",
            "auth.bootstrap.generate",
            "every new worker would generate its own key, which nobody sees",
            "set auth.bootstrap.env: the same variable gives all workers the same key",
        )
    if options.workers_max > 1 and is_below(settings.paths.data_dir, [RUNPOD_NETWORK_VOLUME]):
        findings.error(
            "shared-data-dir",
            "paths.data_dir",
            f"{options.workers_max} workers would write the same keys, usage and logs below {RUNPOD_NETWORK_VOLUME}",
            f"set paths.data_dir: {DATA_DIR}; the weights are stored on the --network-volume",
        )
    if options.workers_max > 1 and settings.limits.store == "memory":
        findings.warn(
            "limits-per-worker",
            "limits.store",
            "each worker counts requests and tokens separately, so a key can use its limits once per worker",
            "set limits.store to a Redis or Valkey that all workers reach",
        )
