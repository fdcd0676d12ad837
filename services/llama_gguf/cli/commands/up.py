"""`llama-gguf up`: load and check the configuration, ensure the first key, and run the appliance until it stops."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_gguf import __version__, logs
from llama_gguf.cli.appliance import public_url
from llama_gguf.cli.config_options import config_options, load_or_exit
from llama_gguf.cli.request_rules import refuse_wrong_rules
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.runtime.launch import LaunchInputs, launch
from llama_gguf.runtime.programs import build_programs
from llama_gguf.runtime.screen import open_screen
from llama_gguf.settings import Settings, locate
from llama_gguf.settings.checks.table import replaced
from llama_gguf.settings.platform import INSTANCE_VARIABLES, resolve_platform
from llama_gguf.settings.redaction import mask_value
from llama_gguf.settings.sections.sources import key_sources_of

if TYPE_CHECKING:
    from llama_gguf.keys.bootstrap import BootstrapResult

log = logging.getLogger("llama_gguf.up")

NVIDIA = Path("/proc/driver/nvidia/gpus")


@click.command()
@config_options
@click.pass_context
def up(context: click.Context, config: Path | None, sets: tuple[str, ...]) -> None:
    """Start the appliance and stay until it stops.

    SIGTERM or Ctrl-C stops it after the requests in flight; a second one stops it at once. SIGHUP reloads the API keys.
    Exits 0 after such a stop, 69 when a program could not stay up, 75 when another appliance uses the run directory, 78
    when the configuration is invalid or refers to something unusable; the reason is on stderr and in
    RUN_DIR/failure.json.
    """
    loaded = load_or_exit(config, sets)
    refuse_wrong_rules(loaded)
    settings = with_platform(loaded.settings, os.environ)
    screen = open_screen(sys.stdout.fileno(), settings.logging)
    shape = screen.shorten if screen else str
    logs.configure("up", format=settings.logging.format, level=settings.logging.level, shape=shape)
    snapshot = Snapshot(settings=settings, locations=locate(settings, os.environ))
    log_boot(snapshot, loaded.file, dump=screen is None)
    warn_of_on_demand(snapshot, os.environ)
    greet(snapshot, first_key(snapshot, os.environ), engine_log=screen is not None)
    env = programs_environment(os.environ, settings)
    sizes = sizes_on_disk(snapshot, os.environ)
    programs = build_programs(settings, Path(sys.executable).name, sizes, one_by_one=NVIDIA.exists())
    context.exit(launch(LaunchInputs(snapshot, programs, env, stdout=sys.stdout.fileno(), stderr=sys.stderr)))


def sizes_on_disk(snapshot: Snapshot, env: Mapping[str, str]) -> dict[str, int]:
    """Return the bytes of each model's file, by the program of its engine; those that are not here yet are left out."""
    if not snapshot.settings.models:
        return {}
    from llama_gguf.models.inventory import file_status  # noqa: PLC0415 - only several models have an order
    from llama_gguf.models.source import plan_sources  # noqa: PLC0415

    found = {}
    for one in snapshot.models:
        file = file_status(plan_sources(one.settings.model, snapshot.locations, env).model)
        if file.bytes_on_disk:
            found[one.program] = file.bytes_on_disk
    return found


def warn_of_on_demand(snapshot: Snapshot, env: Mapping[str, str]) -> None:
    """Log what `check` says of models that only a request will load: nothing else would show it at the start."""
    waiting = [one for one in snapshot.models if one.on_demand]
    if not waiting:
        return
    from llama_gguf.models.checks.files import file_problems  # noqa: PLC0415 - the others are checked by their engines

    for one in waiting:
        for problem in file_problems(one.settings, snapshot.locations, env):
            told = replaced(problem, one, own=True)
            log.warning(told.message, extra=logs.fields(model=one.key, code=told.code, hint=told.hint))


def with_platform(settings: Settings, env: Mapping[str, str]) -> Settings:
    """Return the settings with platform and instance resolved: programs do not read the environment."""
    platform = resolve_platform(settings.health.platform, env)
    given = env.get(INSTANCE_VARIABLES.get(platform, ""), "").strip()
    instance = settings.logging.instance_id or given or socket.gethostname()
    return settings.model_copy(
        update={
            "health": settings.health.model_copy(update={"platform": platform}),
            "logging": settings.logging.model_copy(update={"instance_id": instance}),
        }
    )


def first_key(snapshot: Snapshot, env: Mapping[str, str]) -> BootstrapResult | None:
    """Ensure the first API key, if `auth.bootstrap` is set."""
    auth = snapshot.settings.auth
    if not auth.enabled or not key_sources_of(auth.bootstrap):
        return None
    from llama_gguf.keys.bootstrap import bootstrap  # noqa: PLC0415 - the key store costs 80 ms

    return bootstrap(auth, snapshot.locations, env)


def programs_environment(env: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the environment of the programs: without the first API key, which is stored already."""
    return {name: value for name, value in env.items() if name != settings.auth.bootstrap.env}


def log_boot(snapshot: Snapshot, file: Path | None, *, dump: bool = True) -> None:
    """Log version, device and directories; with `dump` also the whole configuration, secrets masked."""
    locations = snapshot.locations
    log.info(
        "starting",
        extra=logs.fields(
            version=__version__,
            device=describe_device(NVIDIA),
            config=str(file) if file else "none: variables only",
            data_dir=f"{locations.data_dir} ({locations.data_dir_reason})",
            run_dir=f"{locations.run.root} ({locations.run_dir_reason})",
            platform=snapshot.settings.health.platform,
            instance=snapshot.settings.logging.instance_id,
        ),
    )
    if not dump:
        return
    masked = mask_value("", snapshot.settings.model_dump(mode="json"))
    log.info("configuration", extra=logs.fields(settings=json.dumps(masked, separators=(",", ":"))))


def describe_device(gpus: Path) -> str:
    """Return the NVIDIA GPUs by name, as the driver lists them, or the number of CPUs."""
    names = []
    for information in sorted(gpus.glob("*/information")):
        lines = information.read_text(errors="replace").splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return ", ".join(names) if names else f"cpu ({os.cpu_count()} cores)"


def greet(snapshot: Snapshot, first: BootstrapResult | None, *, engine_log: bool = False) -> None:
    """Show the URL, the new key (the only time it is shown) and a sample request to paste into a shell.

    With `engine_log` also the path of llama-server's log, which is not shown on a terminal. On stderr, so that stdout
    contains only log lines.
    """
    if first is not None and first.outcome not in {"off", "present"}:
        log.info("first API key", extra=logs.fields(outcome=first.outcome, id=first.key_id))
    secret = first.secret if first is not None else ""
    lines = [f"API: {public_url(snapshot)}"]
    if secret:
        lines.append(f"API key, shown only once: {secret}")
    if snapshot.settings.auth.enabled and not snapshot.locations.keys_file.exists():
        lines.append(
            "There are no API keys yet, so every request is rejected; create one: llama-gguf keys generate NAME"
        )
    lines.append(f"Try: {sample_call(snapshot, secret)}")
    if engine_log:
        lines += [f"Log of llama-server: {snapshot.locations.run.log(one.program)}" for one in snapshot.models]
    click.echo("\n".join(lines), err=True)


def sample_call(snapshot: Snapshot, key: str) -> str:
    """Return a curl command that calls the API."""
    settings = snapshot.models[0].settings
    samples: dict[str, tuple[str, dict[str, object]]] = {
        "generate": (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Write one sentence about the sea."}], "max_tokens": 64},
        ),
        "embed": ("/v1/embeddings", {"input": "hello"}),
        "rerank": ("/v1/rerank", {"query": "hello", "documents": ["good day", "goodbye"]}),
    }
    path, body = samples[settings.engine.task]
    if settings.model.aliases and snapshot.settings.models:
        body = {"model": settings.model.aliases[0], **body}
    words = ["curl", "-sS", public_url(snapshot) + path, "-H", "Content-Type: application/json"]
    if settings.auth.enabled:
        words += ["-H", f"Authorization: Bearer {key or 'YOUR_KEY'}"]
    return shlex.join([*words, "-d", json.dumps(body)])
