"""The ready-made specs of the repository: which example for which platform, with which options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from llama_gguf.platforms import compose, kubernetes, runpod, vast
from llama_gguf.platforms.bundle import Bundle
from llama_gguf.platforms.container import RenderRequest
from llama_gguf.settings import Settings
from llama_gguf.settings.loading.load import load

FOLDER = "image/deploy"
HUB_DOCKERFILE = ".runpod/Dockerfile"


class _Spec(NamedTuple):
    """One folder of ready-made files."""

    platform: str
    example: str
    render: Callable[[Settings, RenderRequest], Bundle]


def _specs() -> tuple[_Spec, ...]:
    """Return which example suits which platform. A ready-made endpoint has no network volume."""
    composed = partial(compose.render, options=compose.ComposeOptions())
    on_vast = partial(vast.render, options=vast.VastOptions(gpu_memory=24))
    autoscaled = kubernetes.KubernetesOptions(max_replicas=4, autoscaler="keda")
    several = {
        "compose": composed,
        "kubernetes": partial(kubernetes.render, options=kubernetes.KubernetesOptions(storage=100)),
        "runpod": partial(runpod.render, options=runpod.RunPodOptions(volume=100, only="pod")),
        "vast": partial(vast.render, options=vast.VastOptions(gpu_memory=24, disk=80)),
    }
    return (
        _Spec("compose", "cpu-small", composed),
        _Spec("compose", "gpu-24gb", composed),
        _Spec("compose", "many-users", composed),
        _Spec("kubernetes", "gpu-24gb", partial(kubernetes.render, options=kubernetes.KubernetesOptions())),
        _Spec("kubernetes", "many-users", partial(kubernetes.render, options=autoscaled)),
        _Spec("runpod", "gpu-24gb", partial(runpod.render, options=runpod.RunPodOptions())),
        _Spec("runpod", "runpod-serverless", partial(runpod.render, options=runpod.RunPodOptions(only="endpoint"))),
        _Spec("vast", "gpu-24gb", on_vast),
        _Spec("vast", "vast", on_vast),
        *(_Spec(platform, "several-models", several[platform]) for platform in several),
    )


def ready_made(root: Path) -> dict[str, str]:
    """Return every ready-made file by its path below `root`, the repository."""
    files: dict[str, str] = {}
    for spec in _specs():
        settings = _settings(root / f"config/examples/{spec.example}.yaml")
        bundle = spec.render(settings, RenderRequest(name=f"llama-gguf-{spec.example}"))
        files |= {f"{FOLDER}/{spec.platform}/{spec.example}/{name}": text for name, text in bundle.files.items()}
    for name in ("hub.json", "tests.json"):  # RunPod's Hub looks for one listing, at the top of the repository
        listed = files[f"{FOLDER}/runpod/runpod-serverless/{name}"]
        files = {path: text for path, text in files.items() if not path.endswith(f"/{name}")}
        files[f".runpod/{name}"] = listed
    files[HUB_DOCKERFILE] = runpod.hub_dockerfile(_read(root / HUB_DOCKERFILE))
    options = compose.ComposeOptions(config_file="../config/config.yaml")
    default = compose.render(_settings(root / "config/config.yaml"), RenderRequest(), options)
    return files | {"image/compose.yaml": default.files["compose.yaml"]}


def _settings(file: Path) -> Settings:
    """Load a configuration without the environment's variables."""
    return load(file, {}, ()).settings


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""
