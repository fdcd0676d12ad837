"""What every platform's spec says, worked out once: name, image, variant, secrets, and the settings as adapted.

Owns the rules that hold on all platforms: which variables carry secrets, where the first key comes from, that a
container listens where it can be reached, and that a CPU image has no layers on a GPU. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from llama_gguf.platforms.bundle import Findings
from llama_gguf.platforms.environment import Patch, patched, variables
from llama_gguf.settings import Settings
from llama_gguf.settings.hosts import is_loopback
from llama_gguf.settings.locations import DATA_DIR, MODELS_DIR
from llama_gguf.settings.sections.model import Artifact

Variant = Literal["cpu", "cuda", "cuda12"]
MINIMUM_CUDA: dict[Variant, str] = {"cuda": "13.0", "cuda12": "12.0"}
"""CUDA version that the host's driver must offer at least: what image/variants.yaml's minimum_driver came with."""
MINIMUM_COMPUTE: dict[Variant, int] = {"cuda": 75, "cuda12": 70}
"""Least compute capability, times ten."""
REPOSITORY = "llama-gguf-inference"
FIRST_KEY_VARIABLE = "FIRST_API_KEY"
"""Variable the first API key comes from where the configuration names no other source."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller may say beside the configuration; None = worked out."""

    name: str = REPOSITORY
    image: str | None = None
    variant: Variant | None = None
    secrets: tuple[str, ...] = ()  # more variables to take from the platform's secrets, as HF_TOKEN
    config_in_image: bool = False  # the image holds config.yaml; pass only what the platform needs changed


@dataclass(frozen=True, slots=True)
class Launch:
    """A container to launch: settings fit for the platform, and everything around them."""

    name: str
    image: str
    variant: Variant
    settings: Settings
    secrets: tuple[str, ...]  # names of variables whose values the platform must supply
    config_in_image: bool
    adapted: frozenset[str]  # dotted names of the settings that are not as in the configuration

    @property
    def gpu(self) -> bool:
        """Whether the image runs on an NVIDIA GPU."""
        return self.variant != "cpu"

    @property
    def stop_seconds(self) -> int:
        """How long the platform must wait between asking the container to stop and killing it."""
        return math.ceil(self.settings.gateway.drain_seconds + self.settings.supervisor.stop_seconds) + 5

    def variables(self, *, without: frozenset[str] = frozenset()) -> dict[str, str]:
        """Return the variables that carry the configuration, or only its adaptation where the image holds the rest."""
        return variables(self.settings, without=without, only=self.adapted if self.config_in_image else None)


def prepare(settings: Settings, request: Request, findings: Findings, patch: Patch) -> Launch:
    """Return the launch of `settings` adapted by `patch`, noting in `findings` what cannot work anywhere."""
    if not _NAME.fullmatch(request.name):
        findings.error(
            "bad-name",
            "",
            f'the name "{request.name}" is not usable on every platform',
            "use lower-case letters, digits and dashes, at most 53 characters",
        )
    variant = request.variant or default_variant(settings)
    _check_variant(settings, variant, findings)
    changes = {**_first_key(settings, findings), **patch}
    adapted = patched(settings, changes)
    _check_reachable(adapted, findings)
    return Launch(
        name=request.name,
        image=request.image or f"{REPOSITORY}:{variant}",
        variant=variant,
        settings=adapted,
        secrets=secret_variables(adapted, request.secrets),
        config_in_image=request.config_in_image,
        adapted=frozenset(changes),
    )


def default_variant(settings: Settings) -> Variant:
    """Return the variant that suits `engine.gpu_layers`: with 0 the GPU would idle."""
    return "cpu" if settings.engine.gpu_layers == 0 else "cuda"


def _check_variant(settings: Settings, variant: Variant, findings: Findings) -> None:
    layers = settings.engine.gpu_layers
    if variant == "cpu" and layers not in ("auto", 0):
        findings.error(
            "variant-without-gpu",
            "engine.gpu_layers",
            f"the cpu image cannot put {layers} layers on a GPU",
            "render with --variant cuda, or set engine.gpu_layers: auto",
        )


def _check_reachable(settings: Settings, findings: Findings) -> None:
    for path, host in (("gateway.host", settings.gateway.host), ("health.host", settings.health.host)):
        if is_loopback(host):
            findings.error(
                "loopback-host",
                path,
                f"{path} is {host}: inside a container nobody outside could reach it",
                f"set {path}: 0.0.0.0 and let the platform decide who may connect",
            )


def _first_key(settings: Settings, findings: Findings) -> Patch:
    """Return the patch that gives a box without a shell its first key, where nothing says where keys come from."""
    bootstrap = settings.auth.bootstrap
    if not settings.auth.enabled or settings.auth.keys_file:
        return {}
    if bootstrap.env or bootstrap.file or bootstrap.generate:
        return {}
    findings.warn(
        "first-key-variable",
        "auth.bootstrap",
        f"no source for the first API key: this spec takes it from the variable {FIRST_KEY_VARIABLE}",
        "set auth.bootstrap.env to choose the variable yourself",
    )
    return {"auth.bootstrap.env": FIRST_KEY_VARIABLE}


def secret_variables(settings: Settings, more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all variables that hold a secret, each once."""
    model = settings.model
    artifacts = [model, model.mmproj, model.draft, *model.lora]
    names = [
        settings.auth.bootstrap.env,
        *(artifact.token_env for artifact in artifacts if artifact),
        settings.limits.store_password_env,
        *more,
    ]
    return tuple(dict.fromkeys(name for name in names if name))


def read_paths(settings: Settings) -> dict[str, str]:
    """Return the files that the container reads and does not make, by dotted name."""
    model = settings.model
    artifacts: list[tuple[str, Artifact | None]] = [
        ("model", model),
        ("model.mmproj", model.mmproj),
        ("model.draft", model.draft),
        *((f"model.lora[{index}]", lora) for index, lora in enumerate(model.lora)),
    ]
    paths = {f"{name}.path": artifact.path for name, artifact in artifacts if artifact and artifact.path}
    return paths | ({"model.chat_template": model.chat_template} if model.chat_template else {})


def written_paths(settings: Settings) -> dict[str, str]:
    """Return the files and directories that the container writes and that the configuration places, by dotted name."""
    data_dir = settings.paths.data_dir
    places = {
        "paths.data_dir": None if data_dir == "auto" else data_dir,
        "paths.models_dir": settings.paths.models_dir,
        "paths.logs_dir": settings.paths.logs_dir,
        "auth.keys_file": settings.auth.keys_file,
        "auth.audit_file": settings.auth.audit_file,
        "limits.usage_file": settings.limits.usage_file,
    }
    return {name: path for name, path in places.items() if path}


def data_dir(launch: Launch) -> str:
    """Return the directory that the container writes to."""
    configured = launch.settings.paths.data_dir
    return DATA_DIR if configured == "auto" else configured


def models_dir(launch: Launch) -> str:
    """Return the directory of the weights."""
    return launch.settings.paths.models_dir or f"{data_dir(launch)}/{MODELS_DIR}"


def is_below(path: str, directories: Sequence[str]) -> bool:
    """Return whether `path` is one of `directories` or lies in one."""
    return any(PurePosixPath(path).is_relative_to(directory) for directory in directories)


def pinned(image: str) -> bool:
    """Return whether `image` names one build for good, by its digest."""
    return "@sha256:" in image
