"""`llama-gguf render`: launch specs for a platform, from one configuration.

Owns options, output and the writing of files. A spec depends only on the file, `--set` and the options, not on the
environment of the machine that renders it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from llama_gguf.cli.config_options import chosen, config_argument, find_config, report_warnings
from llama_gguf.errors import ConfigError, LaunchError
from llama_gguf.platforms import (
    Bundle,
    ComposeOptions,
    KubernetesOptions,
    RenderRequest,
    RunPodOptions,
    Variant,
    VastOptions,
    ready_made,
    render_compose,
    render_kubernetes,
    render_runpod,
    render_vast,
)
from llama_gguf.settings import Settings
from llama_gguf.settings.loading.load import InvalidConfigError, Loaded, load
from llama_gguf.settings.messages.report import as_data, explain

Command = TypeVar("Command", bound=Callable[..., Any])
Options = TypeVar("Options", RunPodOptions, VastOptions, ComposeOptions, KubernetesOptions)


@click.group()
def render() -> None:
    """Write launch specs for RunPod, Vast.ai, compose and Kubernetes.

    Without --out the files go to standard output. Secrets are never written: a spec refers to the platform's secrets.
    """


def _shared(command: Command) -> Command:
    """Add the options of every platform; the command gets the loaded configuration, a RenderRequest and an output."""

    @functools.wraps(command)
    def run(file: Path | None, config: Path | None, sets: tuple[str, ...], **given: Any) -> None:  # noqa: ANN401 - click's options by name
        loaded = load(find_config(chosen(file, config), os.environ), {}, sets)
        report_warnings(loaded)
        request = RenderRequest(**{field.name: given.pop(field.name) for field in fields(RenderRequest)})
        output = _Output(given.pop("out"), given.pop("only_file"), given.pop("as_json"))
        command(loaded, request, output, **given)

    decorated: Any = config_argument(run)
    for option in reversed(_SHARED_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


_SHARED_OPTIONS = (
    click.option("--name", default=RenderRequest().name, show_default=True, help="Name of the deployment."),
    click.option("--image", metavar="REF", help="Image to run; pin it by digest for reproducible launches."),
    click.option(
        "--variant",
        type=click.Choice(get_args(Variant)),
        help="Image variant; the default depends on engine.gpu_layers.",
    ),
    click.option(
        "--secret", "secrets", multiple=True, metavar="VARIABLE", help="Pass an additional secret, such as HF_TOKEN."
    ),
    click.option("--config-in-image", is_flag=True, help="The image contains config.yaml; pass only the differences."),
    click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Directory to write the files to."),
    click.option("--print", "only_file", metavar="NAME", help="Print only this file."),
    click.option("--json", "as_json", is_flag=True, help="Print files and warnings as one JSON object."),
)


class _Output:
    """The destination of rendered files: a directory, or standard output."""

    def __init__(self, folder: Path | None, only: str | None, as_json: bool) -> None:
        self._folder, self._only, self._as_json = folder, only, as_json

    def emit(self, bundle: Bundle, loaded: Loaded) -> None:
        """Report the warnings, then write or print the files."""
        warnings = loaded.with_origins(bundle.warnings)
        if self._as_json:
            click.echo(json.dumps({"files": bundle.files, "warnings": as_data(warnings)}, indent=1))
            return
        if warnings:
            click.echo(explain(warnings, loaded.text), err=True)
        if self._only is not None:
            self._print_one(bundle.files, self._only)
        elif self._folder is not None:
            write_files(self._folder, bundle.files)
        else:
            _print_all(bundle.files)

    @staticmethod
    def _print_one(files: dict[str, str], name: str) -> None:
        if name not in files:
            raise click.BadParameter(f"no file {name!r}; the files are {', '.join(files)}", param_hint="--print")
        click.echo(files[name], nl=False)


def _print_all(files: dict[str, str]) -> None:
    if len(files) == 1:
        click.echo(next(iter(files.values())), nl=False)
        return
    for index, (name, text) in enumerate(files.items()):
        click.echo(f"{'' if index == 0 else chr(10)}==> {name} <==\n{text}", nl=False)


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write each file atomically below `folder` and print its path."""
    for name, text in files.items():
        path = folder / name
        temporary = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LaunchError(
                f"{path}: cannot be written: {reason}", hint="check the permissions, or pass another --out"
            ) from error
        click.echo(str(path))


def _run(
    loaded: Loaded,
    request: RenderRequest,
    output: _Output,
    renderer: Callable[[Settings, RenderRequest, Options], Bundle],
    kind: type[Options],
    **given: Any,  # noqa: ANN401 - click's options by name
) -> None:
    names = {field.name for field in fields(kind)}
    options = kind(**{name: value for name, value in given.items() if name in names and value is not None})
    try:
        bundle = renderer(loaded.settings, request, options)
    except ConfigError as error:
        raise InvalidConfigError(loaded.with_origins(error.problems), text=loaded.text, file=loaded.file) from None
    output.emit(bundle, loaded)


def _option(options: object, flag: str, field: str = "", **given: Any) -> Callable[[Command], Command]:  # noqa: ANN401 - click's own
    """Return an option whose default is that of a field of `options`: `field`, or the one that `flag` names."""
    name = field or flag.removeprefix("--").replace("-", "_")
    return click.option(flag, name, default=getattr(options, name), show_default=True, **given)


_runpod_option = functools.partial(_option, RunPodOptions())
_vast_option = functools.partial(_option, VastOptions())
_kubernetes_option = functools.partial(_option, KubernetesOptions())


@render.command()
@_shared
@click.option("--only", type=click.Choice(["endpoint", "pod"]), help="Render only one kind.")
@_runpod_option("--pool", "pools", multiple=True, help="GPU pool.")
@_runpod_option("--gpus", "gpu_count", type=click.IntRange(1))
@_runpod_option("--cpu-flavor", help="CPU flavor of the cpu variant.")
@_runpod_option("--vcpus", "vcpu_count", type=int)
@_runpod_option("--workers-min", type=click.IntRange(0))
@_runpod_option("--workers-max", type=click.IntRange(1))
@_runpod_option("--idle-seconds", type=click.IntRange(1, 3600), help="Idle time after which a worker stops.")
@_runpod_option("--flashboot", type=click.Choice(["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]))
@_runpod_option("--disk", type=click.IntRange(1), help="Container disk in GB.")
@_runpod_option("--volume", type=click.IntRange(10), help="Pod volume in GB.")
@click.option("--network-volume", "network_volumes", multiple=True, help="Id of a network volume for the weights.")
@click.option("--data-center", "data_centers", multiple=True, help="Id of a data center.")
@click.option("--registry", help="Id of RunPod's credential for a private registry.")
def runpod(loaded: Loaded, request: RenderRequest, output: _Output, **given: Any) -> None:  # noqa: ANN401 - click's options by name
    """A load-balancing endpoint, a Pod template, and the Hub's files (REST API v2)."""
    _run(loaded, request, output, render_runpod, RunPodOptions, **given)


@render.command()
@_shared
@_vast_option("--disk", type=click.IntRange(1), help="Disk in GB.")
@_vast_option("--gpus", "gpu_count", type=click.IntRange(1))
@click.option("--gpu-memory", type=click.IntRange(1), help="Minimum GPU memory in GB.")
@_vast_option("--args", "arguments", help="Arguments of the entrypoint.")
def vast(loaded: Loaded, request: RenderRequest, output: _Output, **given: Any) -> None:  # noqa: ANN401 - click's options by name
    """A template for Vast.ai instances."""
    _run(loaded, request, output, render_vast, VastOptions, **given)


@render.command()
@_shared
@click.option("--mount-config", "config_file", metavar="PATH", help="Mount this config.yaml instead of a copy.")
@click.option("--bind", "bind_address", metavar="ADDRESS", help="Host address to publish the port on.")
def compose(loaded: Loaded, request: RenderRequest, output: _Output, **given: Any) -> None:  # noqa: ANN401 - click's options by name
    """A compose file with one service for CPU and one for GPU."""
    _run(loaded, request, output, render_compose, ComposeOptions, **given)


def _replicas(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, int]:
    minimum, _, maximum = value.partition(":")
    try:
        return int(minimum), int(maximum or minimum)
    except ValueError:
        raise click.BadParameter("must be a number, or MIN:MAX") from None


@render.command()
@_shared
@click.option(
    "--replicas",
    default="1",
    show_default=True,
    metavar="N|MIN:MAX",
    callback=_replicas,
    help="Number of pods; a range needs an autoscaler.",
)
@_kubernetes_option(
    "--autoscaler", type=click.Choice(["none", "hpa", "keda"]), help="What adds pods when requests wait."
)
@_kubernetes_option(
    "--queue-target", type=click.IntRange(1), help="Queued requests per pod above which the autoscaler adds one."
)
@_kubernetes_option("--prometheus", metavar="URL", help="Server that KEDA queries.")
@_kubernetes_option("--prometheus-release", help="Label by which the Prometheus operator selects the ServiceMonitor.")
@_kubernetes_option("--storage", type=click.IntRange(1), help="Volume size in GiB.")
@click.option("--storage-class", help="StorageClass of the volumes; default the cluster's.")
@_kubernetes_option("--gpus", "gpu_count", type=click.IntRange(1), help="GPUs per pod.")
@_kubernetes_option("--cpu", "cpu_request", help="CPU request.")
@click.option("--memory", "memory_request", help="Memory request; default memory.host_mib and 512Mi, else 4Gi.")
@_kubernetes_option(
    "--startup-minutes",
    type=click.IntRange(1),
    help="Maximum time for download and load before a container is restarted.",
)
def kubernetes(
    loaded: Loaded,
    request: RenderRequest,
    output: _Output,
    replicas: tuple[int, int],
    **given: Any,  # noqa: ANN401 - click's options by name
) -> None:
    """Manifests for kubectl and a Helm chart."""
    given |= {"min_replicas": replicas[0], "max_replicas": replicas[1]}
    _run(loaded, request, output, render_kubernetes, KubernetesOptions, **given)


@render.command(name="all")
@click.option(
    "--root", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path(), show_default=True
)
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is stale.")
def render_all(root: Path, *, check: bool) -> None:
    """The repository's specs, one directory for each example in config/examples."""
    files = ready_made(root)
    if not check:
        write_files(root, files)
        return
    stale = [name for name, text in files.items() if _read(root / name) != text]
    if stale:
        raise LaunchError(f"stale: {', '.join(stale)}", hint="run `llama-gguf render all`")


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
