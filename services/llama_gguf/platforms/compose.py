"""Docker Compose: one service for a CPU and one for an NVIDIA GPU, each behind its own profile.

Owns the compose file's layout and its hardening: read-only root, no capabilities, no new privileges. The
configuration is mounted as a file; secrets come from the shell or `.env`, never from the compose file. The health
check is the image's own, which follows the configured port.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from llama_gguf.platforms.container import (
    Launch,
    RenderRequest,
    Variant,
    data_dir,
    default_variant,
    is_below,
    models_on_gpus,
    prepare,
    read_paths,
)
from llama_gguf.platforms.environment import Patch, config_yaml
from llama_gguf.platforms.mounts import Mounts, check_mounts
from llama_gguf.platforms.serialize import Tree, to_yaml
from llama_gguf.settings import Settings
from llama_gguf.settings.hosts import EVERY_INTERFACE, LOOPBACK, is_loopback
from llama_gguf.settings.locations import CONFIG_FILE

from .bundle import Bundle, Findings

_TMPFS = {"/run": "64m", "/tmp": "256m"}  # noqa: S108 - paths in the container


@dataclass(frozen=True, slots=True)
class ComposeOptions:
    """Options of the compose file that the configuration does not have."""

    # File to mount as config.yaml, relative to the compose file; None = written beside it.
    config_file: str | None = None
    bind_address: str | None = None  # host address to publish the API on; None = all, or loopback without auth


class _Mount(NamedTuple):
    """A named volume, or a folder or file of the host that the container only reads."""

    type: Literal["volume", "bind"]
    source: str
    target: str

    def tree(self) -> Tree:
        tree: Tree = {"type": self.type, "source": _literal(self.source), "target": _literal(self.target)}
        return tree | ({"read_only": True} if self.type == "bind" else {})


def render(settings: Settings, request: RenderRequest, options: ComposeOptions) -> Bundle:
    """Return compose.yaml, and config.yaml unless another file is mounted in its place."""
    findings = Findings("Compose")
    patch = _listen_on_all_interfaces(settings)
    variants = _variants(settings, request)
    launches = [prepare(settings, replace(request, variant=variant), findings, patch) for variant in variants]
    launch = launches[0]
    address = options.bind_address or _published_address(settings, findings)
    mounts = _mounts(launch, findings)
    check_mounts(launch, Mounts("compose.yaml", persistent=tuple(mount.target for mount in mounts)), findings)
    if not launch.config_in_image:
        mounts.append(_Mount("bind", options.config_file or "./config.yaml", CONFIG_FILE))
    services = {_service_name(one): _service(one, mounts, address) for one in launches}
    volumes = {mount.source: None for mount in mounts if mount.type == "volume"}
    compose: Tree = {"name": launch.name, "services": services, "volumes": volumes}
    if file := settings.auth.bootstrap.file:
        compose["secrets"] = {_secret_name(file): {"file": f"./{_secret_name(file)}"}}
    files = {"compose.yaml": to_yaml(compose, header=_header(launches))}
    if options.config_file is None and not launch.config_in_image:
        files["config.yaml"] = config_yaml(launch.settings)
    return findings.finish(files)


def _listen_on_all_interfaces(settings: Settings) -> Patch:
    """Return the patch by which both servers can be reached from outside the container; `ports` decides by whom."""
    hosts = {"gateway.host": settings.gateway.host, "health.host": settings.health.host}
    return {name: EVERY_INTERFACE for name, host in hosts.items() if is_loopback(host)}


def _published_address(settings: Settings, findings: Findings) -> str | None:
    """Return the host address to publish on: loopback if the configuration says so or API keys are disabled."""
    if is_loopback(settings.gateway.host):
        return LOOPBACK
    if settings.auth.enabled:
        return None
    findings.warn(
        "published-on-loopback",
        "auth.enabled",
        "without API keys the port is published on 127.0.0.1 only",
        "set auth.enabled: true, or pass --bind 0.0.0.0 if something else controls access",
    )
    return LOOPBACK


def _variants(settings: Settings, request: RenderRequest) -> list[Variant]:
    """Return the variants to offer: the requested one, else all on which the configuration can run."""
    if request.variant:
        return [request.variant]
    if default_variant(settings) == "cpu":
        return ["cpu"]
    return ["cuda"] if models_on_gpus(settings) else ["cuda", "cpu"]


def _service_name(launch: Launch) -> str:
    return "gpu" if launch.gpu else "cpu"


def _service(launch: Launch, mounts: list[_Mount], address: str | None) -> Tree:
    settings = launch.settings
    port = settings.gateway.port
    service: Tree = {
        "profiles": [_service_name(launch)],
        "image": launch.image,
        "ports": [f"{address}:{port}:{port}" if address else f"{port}:{port}"],
    }
    if variables := {name: f"${{{name}:?set it in .env or the shell}}" for name in launch.secrets}:
        service["environment"] = variables
    if file := settings.auth.bootstrap.file:
        service["secrets"] = [{"source": _secret_name(file), "target": _literal(file)}]
    service |= {
        "volumes": [mount.tree() for mount in mounts],
        "tmpfs": [f"{_literal(path)}:mode=1777,size={size}" for path, size in _tmpfs(settings).items()],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{launch.stop_seconds}s",
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    if launch.gpu:
        device = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return service


def _tmpfs(settings: Settings) -> dict[str, str]:
    run_dir = settings.paths.run_dir
    own = {} if run_dir == "auto" or is_below(run_dir, list(_TMPFS)) else {run_dir: "64m"}
    return _TMPFS | own


def _mounts(launch: Launch, findings: Findings) -> list[_Mount]:
    paths = launch.settings.paths
    data = data_dir(launch)
    mounts = [_Mount("volume", "data", data)]
    if paths.models_dir and not is_below(paths.models_dir, [data]):
        mounts.append(_Mount("volume", "models", paths.models_dir))
    folders = _host_folders(launch, [mount.target for mount in mounts], findings)
    return mounts + [_Mount("bind", folder, folder) for folder in folders]


def _host_folders(launch: Launch, volumes: list[str], findings: Findings) -> Iterator[str]:
    """Yield the host directories, each once, of the files that the configuration names by path."""
    seen: set[str] = set()
    for name, path in read_paths(launch.settings).items():
        folder = str(PurePosixPath(path).parent)
        if is_below(path, volumes) or folder in seen:
            continue
        seen.add(folder)
        if not path.startswith("/") or len(PurePosixPath(folder).parts) < 2:
            findings.error(
                "path-not-mountable",
                name,
                f"{name} is {path}, whose directory cannot be mounted into a container at the same path",
                "use an absolute path in a directory of its own, as in /srv/models/model.gguf",
            )
            continue
        yield folder


def _secret_name(file: str) -> str:
    return PurePosixPath(file).name


def _literal(text: str) -> str:
    """Return `text` so that Compose does not interpolate a dollar sign in it."""
    return text.replace("$", "$$")


def _header(launches: list[Launch]) -> list[str]:
    commands = [f"docker compose --profile {_service_name(launch)} up -d" for launch in launches]
    lines = ["Written by `llama-gguf render compose`. Start it with:", *(f"  {command}" for command in commands)]
    if secrets := launches[0].secrets:
        lines.append(f"Secrets are read from the shell or from .env beside this file: {', '.join(secrets)}")
    if file := launches[0].settings.auth.bootstrap.file:
        lines.append(f"Write the first API key to ./{_secret_name(file)}, readable by uid 10001 or group 0.")
    return lines
