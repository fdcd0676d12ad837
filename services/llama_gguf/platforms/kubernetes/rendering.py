"""One configuration as manifests and as a chart, and what Kubernetes cannot express of it.

Owns which objects there are and in which files. A single pod stores everything on its own volume; several share only
the weights, because several writers would corrupt keys, usage and logs.
"""

from __future__ import annotations

from llama_gguf.platforms.container import (
    Launch,
    RenderRequest,
    check_health_contract,
    data_dir,
    models_dir,
    prepare,
    warn_of_room,
)
from llama_gguf.platforms.environment import Patch
from llama_gguf.platforms.kubernetes.parameters import HelmValues, ManifestValues, Values
from llama_gguf.platforms.mounts import Mounts, check_mounts
from llama_gguf.platforms.serialize import Tree, to_yaml
from llama_gguf.settings import Settings
from llama_gguf.settings.locations import DATA_DIR

from ..bundle import Bundle, Findings
from .chart import chart
from .objects import (
    claims,
    config_map,
    disruption_budget,
    horizontal_autoscaler,
    scaled_object,
    secret_example,
    secret_keys,
    service,
    service_monitor,
)
from .options import CONFIG_FOLDER, QUEUE_METRIC, KubernetesOptions
from .workload import deployment

_NOT_APPLIED = ("service-monitor.yaml",)  # kinds that not every cluster has: left out of the kustomization
_HEADER = {
    "service-monitor.yaml": ("For clusters with the Prometheus operator: kubectl apply -f service-monitor.yaml",),
    "secret.example.yaml": (
        "An example. Create the Secret with: kubectl create secret generic NAME --from-literal=VARIABLE=VALUE",
    ),
}


def render(settings: Settings, request: RenderRequest, options: KubernetesOptions) -> Bundle:
    """Return manifests/ for kubectl and chart/ for Helm."""
    findings = Findings("Kubernetes")
    _check(settings, options, findings)
    patch: Patch = {"paths.data_dir": DATA_DIR} if settings.paths.data_dir == "auto" else {}
    launch = prepare(settings, request, findings, patch)
    persistent = (models_dir(launch),) if options.replicated else (data_dir(launch), models_dir(launch))
    ephemeral = ("/tmp", "/run", data_dir(launch))  # noqa: S108 - paths in the container
    check_mounts(launch, Mounts("deployment.yaml", persistent, ephemeral), findings)
    _check_key_file(launch, findings)
    warn_of_room(settings, "--storage", options.storage, KubernetesOptions().storage, findings)
    objects = _objects(launch, options, ManifestValues(launch))
    helm_values = HelmValues(launch.settings)
    templates = _objects(launch, options, helm_values)
    files = {f"manifests/{name}": text for name, text in _manifests(launch, objects).items()}
    files |= {f"chart/{name}": text for name, text in chart(launch, templates, helm_values).items()}
    return findings.finish(files)


def _objects(launch: Launch, options: KubernetesOptions, values: Values) -> dict[str, Tree]:
    """Return every object by file name."""
    found: dict[str, Tree] = {}
    if not launch.config_in_image:
        found["config-map.yaml"] = config_map(values)
    for purpose, claim in claims(launch, options, values).items():
        found[f"claim-{purpose}.yaml"] = claim
    found["deployment.yaml"] = deployment(launch, options, values)
    found["service.yaml"] = service(values)
    found["disruption-budget.yaml"] = disruption_budget(values)
    if options.autoscaler == "hpa":
        found["autoscaler.yaml"] = horizontal_autoscaler(options, values)
    if options.autoscaler == "keda":
        found["autoscaler.yaml"] = scaled_object(options, values)
    if launch.settings.metrics.enabled:
        found["service-monitor.yaml"] = service_monitor(launch, options, values)
    return found


def _manifests(launch: Launch, objects: dict[str, Tree]) -> dict[str, str]:
    kustomization: Tree = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [name for name in objects if name not in _NOT_APPLIED],
    }
    header = ["Written by `llama-gguf render kubernetes`. Apply with: kubectl apply -k ."]
    files = {"kustomization.yaml": to_yaml(kustomization, header=header)}
    files |= {name: to_yaml(tree, header=_HEADER.get(name, ())) for name, tree in objects.items()}
    if secret_keys(launch):
        example = secret_example(launch, ManifestValues(launch))
        files["secret.example.yaml"] = to_yaml(example, header=_HEADER["secret.example.yaml"])
    return files


def _check_key_file(launch: Launch, findings: Findings) -> None:
    file = launch.settings.auth.bootstrap.file
    mounted = ("/", "/run", "/tmp", CONFIG_FOLDER, data_dir(launch), models_dir(launch))  # noqa: S108 - in the container
    if file and (not file.startswith("/") or file.rpartition("/")[0] in ("", *mounted)):
        findings.error(
            "file-not-mountable",
            "auth.bootstrap.file",
            f"auth.bootstrap.file is {file}, in a directory where a Secret cannot be mounted",
            "use a directory of its own, as in /run/secrets/llama-gguf/first-key, or set auth.bootstrap.env",
        )


def _check(settings: Settings, options: KubernetesOptions, findings: Findings) -> None:
    if not 1 <= options.min_replicas <= options.max_replicas:
        findings.error(
            "replicas-range",
            "",
            f"--replicas {options.min_replicas}:{options.max_replicas} is not a valid range",
            "pass MIN:MAX with 1 <= MIN <= MAX; scaling to zero needs a proxy that holds requests until a pod is ready",
        )
    if options.min_replicas < options.max_replicas and options.autoscaler == "none":
        findings.error(
            "no-autoscaler",
            "",
            "a range of replicas needs an autoscaler",
            "pass --autoscaler keda or --autoscaler hpa",
        )
    if options.autoscaler != "none" and not settings.metrics.enabled:
        findings.error(
            "no-queue-metric",
            "metrics.enabled",
            f"the autoscaler scales on {QUEUE_METRIC}, which metrics.enabled: false disables",
            "set metrics.enabled: true",
        )
    check_health_contract(settings, "kubernetes", findings)
    if not options.replicated:
        return
    bootstrap = settings.auth.bootstrap
    if settings.auth.enabled and bootstrap.generate and not (bootstrap.env or bootstrap.file):
        findings.error(
            "key-per-replica",
            "auth.bootstrap.generate",
            "every pod would generate its own key",
            "set auth.bootstrap.env: the same Secret gives all pods the same key",
        )
    if settings.limits.store == "memory":
        findings.warn(
            "limits-per-replica",
            "limits.store",
            "each pod counts requests and tokens separately, so a key can use its limits once per pod",
            "set limits.store to a Redis or Valkey that all pods reach",
        )
