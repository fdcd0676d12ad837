"""What the specs of all platforms have in common: name, image, variant, secrets, and the settings as adapted.

Owns the rules that hold on all platforms: which variables hold secrets, where the first key comes from, that a
container listens where it can be reached, and that a CPU image has no layers on a GPU. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from llama_gguf.platforms.bundle import Findings
from llama_gguf.platforms.environment import Patch, patched, variables
from llama_gguf.settings import Settings
from llama_gguf.settings.hosts import is_loopback
from llama_gguf.settings.locations import DATA_DIR, MODELS_DIR
from llama_gguf.settings.one_model import OneModel, each_model
from llama_gguf.settings.platform import Platform
from llama_gguf.settings.sections.engine_parts.auto import known
from llama_gguf.settings.sections.sources import DOWNLOADED, artifacts_of, key_sources_of, sources_of

if TYPE_CHECKING:
    from llama_gguf.settings.sections.model import Artifact

Variant = Literal["cpu", "cuda", "cuda12"]
MINIMUM_CUDA: dict[Variant, str] = {"cuda": "13.0", "cuda12": "12.0"}
"""Minimum CUDA version of the host's driver: the one that image/variants.yaml's minimum_driver was released with."""
MINIMUM_COMPUTE: dict[Variant, int] = {"cuda": 75, "cuda12": 70}
"""Minimum compute capability, times ten."""
REPOSITORY = "llama-gguf-inference"
FIRST_KEY_VARIABLE = "FIRST_API_KEY"
"""Variable that holds the first API key where the configuration names no other source."""
_USUAL_SLOTS = 4
"""Where slots are chosen for the machine: as many as without a setting."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """What the caller chooses beside the configuration; None = derived from it."""

    name: str = REPOSITORY
    image: str | None = None
    variant: Variant | None = None
    secrets: tuple[str, ...] = ()  # more variables to read from the platform's secrets, as HF_TOKEN
    config_in_image: bool = False  # the image contains config.yaml; pass only what the platform changes


@dataclass(frozen=True, slots=True)
class Launch:
    """A container to launch: the settings as the platform needs them, and everything around them."""

    name: str
    image: str
    variant: Variant
    settings: Settings
    secrets: tuple[str, ...]  # names of variables whose values the platform must supply
    config_in_image: bool
    adapted: frozenset[str]  # dotted names of the settings that differ from the configuration

    @property
    def gpu(self) -> bool:
        """Whether the image runs on an NVIDIA GPU."""
        return self.variant != "cpu"

    @property
    def stop_seconds(self) -> int:
        """The grace period: how long the platform must wait between SIGTERM and SIGKILL."""
        return math.ceil(self.settings.gateway.drain_seconds + self.settings.supervisor.stop_seconds) + 5

    def variables(self, *, without: frozenset[str] = frozenset()) -> dict[str, str]:
        """Return the variables that hold the configuration, or only what differs from it if the image contains it."""
        return variables(self.settings, without=without, only=self.adapted if self.config_in_image else None)


def prepare(settings: Settings, request: RenderRequest, findings: Findings, patch: Patch) -> Launch:
    """Return the launch of `settings` adapted by `patch`; report in `findings` what works on no platform."""
    if not _NAME.fullmatch(request.name):
        findings.error(
            "bad-name",
            "",
            f'the name "{request.name}" is not valid on every platform',
            "use lower-case letters, digits and hyphens, at most 53 characters",
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


def check_health_contract(settings: Settings, own: Platform, findings: Findings) -> None:
    """Report that health.platform is set to another platform than `own`."""
    if settings.health.platform not in ("auto", own, "plain"):
        findings.error(
            "health-contract",
            "health.platform",
            f"health.platform is {settings.health.platform}, which is another platform",
            "set health.platform: auto",
        )


def default_variant(settings: Settings) -> Variant:
    """Return the variant for `engine.gpu_layers`: with 0 for every model a GPU would be idle."""
    return "cpu" if all(one.settings.engine.gpu_layers == 0 for one in each_model(settings)) else "cuda"


def models_on_gpus(settings: Settings) -> tuple[OneModel, ...]:
    """Return the models that must have layers on a GPU."""
    return tuple(one for one in each_model(settings) if one.settings.engine.gpu_layers not in ("auto", 0))


def _check_variant(settings: Settings, variant: Variant, findings: Findings) -> None:
    if variant != "cpu":
        return
    for one in models_on_gpus(settings):
        place = one.place_of("engine.gpu_layers")
        findings.error(
            "variant-without-gpu",
            place,
            f"the cpu image cannot put {one.settings.engine.gpu_layers} layers on a GPU",
            f"render with --variant cuda, or set {place}: auto",
        )


def _check_reachable(settings: Settings, findings: Findings) -> None:
    for path, host in (("gateway.host", settings.gateway.host), ("health.host", settings.health.host)):
        if is_loopback(host):
            findings.error(
                "loopback-host",
                path,
                f"{path} is {host}, which cannot be reached from outside the container",
                f"set {path}: 0.0.0.0; the platform controls who can connect",
            )


def _first_key(settings: Settings, findings: Findings) -> Patch:
    """Return the patch by which a container gets its first key, where the configuration names no source of keys."""
    if not settings.auth.enabled or settings.auth.keys_file or key_sources_of(settings.auth.bootstrap):
        return {}
    findings.warn(
        "first-key-variable",
        "auth.bootstrap",
        f"no source is set for the first API key: this spec reads it from the variable {FIRST_KEY_VARIABLE}",
        "set auth.bootstrap.env to choose the variable yourself",
    )
    return {"auth.bootstrap.env": FIRST_KEY_VARIABLE}


def secret_variables(settings: Settings, more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all variables that hold a secret, each once."""
    names = [
        settings.auth.bootstrap.env,
        *(artifact.token_env for _, artifact in every_artifact(settings)),
        settings.limits.store_password_env,
        *more,
    ]
    return tuple(dict.fromkeys(name for name in names if name))


def every_artifact(settings: Settings) -> Iterator[tuple[str, Artifact]]:
    """Yield every file of weights of every model, with its dotted name."""
    for one in each_model(settings):
        for name, artifact in artifacts_of(one.settings.model):
            yield one.place_of(name), artifact


def read_paths(settings: Settings) -> dict[str, str]:
    """Return the files that the container only reads, by dotted name."""
    paths = {f"{name}.path": artifact.path for name, artifact in every_artifact(settings) if artifact.path}
    templates = {one.place_of("model.chat_template"): one.settings.model.chat_template for one in each_model(settings)}
    return paths | {name: path for name, path in templates.items() if path}


def requests_at_once(settings: Settings) -> int:
    """Return how many requests the appliance certainly works on at the same time.

    Models that are loaded on demand can take turns, so only the largest of them counts.
    """
    models = each_model(settings)
    places = {
        one.key: settings.limits.max_in_flight or known(one.settings.engine.slots) or _USUAL_SLOTS for one in models
    }
    always = sum(places[one.key] for one in models if not one.on_demand)
    return always + max((places[one.key] for one in models if one.on_demand), default=0)


def warn_of_room(settings: Settings, option: str, size: int, default: int, findings: Findings) -> None:
    """Warn that a disk or volume has its default size, which is for one model, where several are downloaded."""
    downloaded = [one for one in each_model(settings) if set(sources_of(one.settings.model)) & set(DOWNLOADED)]
    if size == default and len(downloaded) > 1:
        findings.warn(
            "disk-for-several",
            "models",
            f"{len(downloaded)} models are downloaded to a disk of the default size, which is for one",
            f"`llama-gguf plan` says how large they are; pass {option} with the sum and some room",
        )


def written_paths(settings: Settings) -> dict[str, str]:
    """Return the configured paths that the container writes to, by dotted name."""
    data_dir = settings.paths.data_dir
    paths = {
        "paths.data_dir": None if data_dir == "auto" else data_dir,
        "paths.models_dir": settings.paths.models_dir,
        "paths.logs_dir": settings.paths.logs_dir,
        "auth.keys_file": settings.auth.keys_file,
        "auth.audit_file": settings.auth.audit_file,
        "limits.usage_file": settings.limits.usage_file,
    }
    return {name: path for name, path in paths.items() if path}


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
    """Return whether `image` is pinned to one build by its digest."""
    return "@sha256:" in image
