"""The bodies of RunPod's POST /v2/serverless and POST /v2/templates, which reject every unknown field. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from llama_gguf.platforms.container import MINIMUM_CUDA, Launch, requests_at_once
from llama_gguf.platforms.serialize import Tree
from llama_gguf.settings.platform import RUNPOD_MAX_REQUEST_SECONDS, RUNPOD_POD_VOLUME

from .options import MIN_VOLUME, RunPodOptions, allowed_cuda


def endpoint(launch: Launch, options: RunPodOptions, variables: Mapping[str, str]) -> Tree:
    """Return a load-balancing endpoint that scales on the requests in flight: one worker for each full engine."""
    settings = launch.settings
    tree: Tree = {"name": launch.name, "type": "LOAD_BALANCER", "image": launch.image}
    tree |= _registry(options)
    tree |= {
        "disk": options.disk,
        "env": dict(variables),
        "ports": [f"{settings.gateway.port}/http", f"{settings.health.port}/http"],
    }
    if launch.variant == "cpu":
        tree["cpu"] = [{"id": options.cpu_flavor, "vcpuCount": options.vcpu_count}]
    else:
        minimum = MINIMUM_CUDA[launch.variant]
        tree["gpu"] = {"pools": list(options.pools), "count": options.gpu_count, "minCudaVersion": minimum}
    tree |= {
        "workers": {"min": options.workers_min, "max": options.workers_max, "idleTimeout": options.idle_seconds},
        "scaling": {
            "type": "REQUEST_COUNT",
            "requestCount": requests_at_once(settings),
        },
        "timeout": 1000 * int(min(settings.gateway.timeouts.total_seconds, RUNPOD_MAX_REQUEST_SECONDS)),
        "flashboot": options.flashboot,
    }
    if options.network_volumes:
        tree["networkVolumes"] = list(options.network_volumes)
    if options.data_centers:
        tree["dataCenterIds"] = list(options.data_centers)
    return tree


def pod_template(launch: Launch, options: RunPodOptions, variables: Mapping[str, str]) -> Tree:
    """Return a template for Pods. A GPU Pod stores its data on its own volume; CPU Pods have no volume."""
    tree: Tree = {"name": launch.name, "image": launch.image}
    tree |= _registry(options)
    tree |= {
        "disk": options.disk,
        "env": dict(variables),
        "ports": [f"{launch.settings.gateway.port}/http"],
    }
    if launch.variant == "cpu":
        tree["category"] = "CPU"
    else:
        size = max(options.volume, MIN_VOLUME)
        tree |= {
            "mounts": {"persistent": {"size": size, "path": RUNPOD_POD_VOLUME}},
            "category": "NVIDIA",
            "allowedCudaVersions": allowed_cuda(launch.variant),
        }
    # startSsh and startJupyter default to true in a template; the image has neither program.
    return tree | {"serverless": False, "public": False, "startSsh": False, "startJupyter": False}


def _registry(options: RunPodOptions) -> Tree:
    return {"registry": options.registry} if options.registry else {}
