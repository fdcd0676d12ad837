"""The Deployment: one engine per pod, hardened, with startup, liveness and readiness probes. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from llama_gguf.platforms.container import REPOSITORY, Launch, data_dir, models_dir
from llama_gguf.platforms.kubernetes.parameters import Values
from llama_gguf.platforms.serialize import Tree
from llama_gguf.settings.health_paths import LIVE, READY, STARTUP

from .options import CONFIG_FOLDER, DEREGISTER_SECONDS, UID, KubernetesOptions

_RUN_BYTES = "64Mi"
_BESIDE_MODELS_MIB = 512
"""Memory that the appliance's other programs and what each request holds have beside the models."""


def labels(values: Values) -> Tree:
    """Return the labels that select the pods of one installation."""
    return {"app.kubernetes.io/name": REPOSITORY, "app.kubernetes.io/instance": values.name()}


def object_of(version: str, kind: str, values: Values, suffix: str = "", **content: Tree) -> Tree:
    """Return an object of one installation, with its name and labels."""
    metadata = {"name": values.name(suffix), "labels": labels(values)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}


def deployment(launch: Launch, options: KubernetesOptions, values: Values) -> Tree:
    """Return the Deployment. A single pod holds the volume and the GPU, so an update recreates it without overlap."""
    spec: Tree = {}
    if options.autoscaler == "none":
        spec["replicas"] = values.value("replicas", options.min_replicas)
    rolling: Tree = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec |= {
        "strategy": values.value("strategy", rolling if options.replicated else {"type": "Recreate"}),
        "selector": {"matchLabels": labels(values)},
        "template": {
            "metadata": {
                "labels": labels(values),
                "annotations": {"checksum/config": values.config_digest()},
            },
            "spec": _pod(launch, options, values),
        },
    }
    return object_of("apps/v1", "Deployment", values, spec=spec)


def _pod(launch: Launch, options: KubernetesOptions, values: Values) -> Tree:
    gpu_nodes = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] if launch.gpu else []
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # the cluster would set LLAMA_GGUF_… variables for Services
        "terminationGracePeriodSeconds": values.grace_seconds(),
        "imagePullSecrets": values.value("imagePullSecrets", []),
        "nodeSelector": values.value("nodeSelector", {}),
        "tolerations": values.value("tolerations", gpu_nodes),
        "securityContext": values.value(
            "podSecurityContext",
            {
                "runAsNonRoot": True,
                "runAsUser": UID,
                "runAsGroup": 0,
                "fsGroup": UID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        ),
        "containers": [_container(launch, options, values)],
        "volumes": _volumes(launch, options, values),
    }


def _container(launch: Launch, options: KubernetesOptions, values: Values) -> Tree:
    container: Tree = {
        "name": "appliance",
        "image": values.value("image", launch.image),
        "imagePullPolicy": values.value("imagePullPolicy", "IfNotPresent"),
        "ports": [
            {"name": "http", "containerPort": values.port("gateway")},
            {"name": "health", "containerPort": values.port("health")},
        ],
    }
    if variables := _variables(launch, values):
        container["env"] = variables
    container |= _probes(options)
    container |= {
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DEREGISTER_SECONDS)]}}},
        "resources": values.value("resources", _resources(launch, options)),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(launch, options),
    }
    return container


def _variables(launch: Launch, values: Values) -> list[Tree]:
    """Return the secrets, each one by name, and what overrides the image's own config.yaml."""
    plain = launch.variables() if launch.config_in_image else {}
    found: list[Tree] = [{"name": name, "value": value.replace("$(", "$$(")} for name, value in plain.items()]
    references = [(key, {"name": secret_name(values), "key": key}) for key in launch.secrets]
    return found + [{"name": key, "valueFrom": {"secretKeyRef": reference}} for key, reference in references]


def secret_name(values: Values) -> str:
    """Return the name of the Secret, whose keys are names of variables."""
    return values.name("-secrets")


def _probes(options: KubernetesOptions) -> Tree:
    def probe(path: str, period: int, failures: int) -> Tree:
        return {
            "httpGet": {"path": path, "port": "health"},
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe(STARTUP, 5, 12 * options.startup_minutes),
        "livenessProbe": probe(LIVE, 10, 6),
        "readinessProbe": probe(READY, 2, 1),
    }


def _resources(launch: Launch, options: KubernetesOptions) -> Tree:
    memory = options.memory_request or _memory_request(launch)
    resources: Tree = {"requests": {"cpu": options.cpu_request, "memory": memory}}
    if launch.gpu:
        resources["limits"] = {"nvidia.com/gpu": options.gpu_count}
    return resources


def _memory_request(launch: Launch) -> str:
    host_mib = launch.settings.memory.host_mib
    return "4Gi" if host_mib == "auto" else f"{host_mib + _BESIDE_MODELS_MIB}Mi"


def _run_dir(launch: Launch) -> str:
    configured = launch.settings.paths.run_dir
    return "/run" if configured == "auto" else configured


def _mounts(launch: Launch, options: KubernetesOptions) -> list[Tree]:
    mounts: list[Tree] = [{"name": "data", "mountPath": data_dir(launch)}]
    if options.replicated or not PurePosixPath(models_dir(launch)).is_relative_to(data_dir(launch)):
        mounts.append({"name": "models", "mountPath": models_dir(launch)})
    mounts += [{"name": "run", "mountPath": _run_dir(launch)}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - in the container
    if not launch.config_in_image:
        mounts.append({"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True})
    if file := launch.settings.auth.bootstrap.file:
        mounts.append({"name": "first-key", "mountPath": str(PurePosixPath(file).parent), "readOnly": True})
    return mounts


def _volumes(launch: Launch, options: KubernetesOptions, values: Values) -> list[Tree]:
    names = [str(mount["name"]) for mount in _mounts(launch, options)]
    return [{"name": name, **_volume(name, launch, options, values)} for name in names]


def _volume(name: str, launch: Launch, options: KubernetesOptions, values: Values) -> Tree:
    match name:
        case "data" if options.replicated:
            return {"emptyDir": {}}
        case "data" | "models":
            return {"persistentVolumeClaim": {"claimName": values.name(f"-{name}")}}
        case "run":  # the key between gateway and engine is stored in memory only
            return {"emptyDir": {"medium": "Memory", "sizeLimit": _RUN_BYTES}}
        case "config":
            return {"configMap": {"name": values.name("-config")}}
        case "first-key":
            key = PurePosixPath(str(launch.settings.auth.bootstrap.file)).name
            secret = {"secretName": secret_name(values), "items": [{"key": key, "path": key}], "defaultMode": 0o440}
            return {"secret": secret}
        case _:
            return {"emptyDir": {}}
