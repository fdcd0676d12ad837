"""`llama-gguf models load|unload|pin|unpin`: what an operator does with the models of a running appliance.

The gateway does it; this asks it with a key of the scope `admin`, and waits until it is done.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from rich.console import Console
from rich.text import Text

from llama_gguf.cli.appliance import find_run_dir
from llama_gguf.cli.config_options import config_options, json_option
from llama_gguf.cli.gateway_calls import OperatorCalls, operator_calls
from llama_gguf.errors import ApplianceError
from llama_gguf.logs import clean
from llama_gguf.models.progress import LINE_SECONDS
from llama_gguf.models.source import served_names
from llama_gguf.rundir import engine_phase
from llama_gguf.settings import RunDir
from llama_gguf.settings.loading.known_variables import ADMIN_KEY_VARIABLE
from llama_gguf.states import Residency

Command = TypeVar("Command", bound=Callable[..., Any])

_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Target:
    """The running appliance that a command is for."""

    run: RunDir
    calls: OperatorCalls

    def program_of(self, name: str) -> str:
        """Return the engine's program of a model, by the name that the gateway gives it: its first one."""
        served = self.calls.snapshot.models
        return next((one.program for one in served if name == served_names(one.settings.model)[0]), served[0].program)


def operator_options(command: Command) -> Command:
    """Add the options that find the appliance, and the operator's key; the command receives them as one `target`."""

    @functools.wraps(command)
    def run(
        *, config: Path | None, sets: tuple[str, ...], run_dir: Path | None, key_file: Path | None, **kwargs: object
    ) -> object:
        found = find_run_dir(run_dir, config, sets)
        return command(target=Target(found, operator_calls(found, key_file)), **kwargs)

    key_option = click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        help=f"File with a key of the scope admin, - for stdin; default: the variable {ADMIN_KEY_VARIABLE}.",
    )
    run_option = click.option(
        "--run-dir", type=click.Path(path_type=Path), help="Run directory; default: that of `up`."
    )
    return cast("Command", click.argument("name")(config_options(run_option(key_option(json_option(run))))))


no_wait_option = click.option("--no-wait", is_flag=True, help="Do not wait until it is done.")


@click.command()
@operator_options
@no_wait_option
def load(target: Target, *, name: str, no_wait: bool, as_json: bool) -> None:
    """Load the model NAME of the running appliance, and wait until it is loaded.

    Models that nobody uses give way to it. Ctrl-C ends the wait, not the load.
    """
    found = target.calls.change("load", name)
    _report(found if no_wait else _wait_loaded(target, found), as_json=as_json)


@click.command()
@operator_options
@no_wait_option
def unload(target: Target, *, name: str, no_wait: bool, as_json: bool) -> None:
    """Unload the model NAME once its requests have ended. The next request for it loads it again."""
    found = target.calls.change("unload", name)
    if not no_wait:
        found = _wait(target, found, lambda now: not now["unload_requested"])
        if found["state"] not in {Residency.UNLOADED, Residency.FAILED}:
            raise ApplianceError(f"{found['name']} is {found['state']} again: a request or another operator needs it")
    _report(found, as_json=as_json)


@click.command()
@operator_options
@no_wait_option
def pin(target: Target, *, name: str, no_wait: bool, as_json: bool) -> None:
    """Load the model NAME and keep it in memory, whoever else waits, until `unpin` or `unload`."""
    found = target.calls.change("pin", name)
    _report(found if no_wait else _wait_loaded(target, found), as_json=as_json)


@click.command()
@operator_options
def unpin(target: Target, *, name: str, as_json: bool) -> None:
    """Let the model NAME give way to others again."""
    _report(target.calls.change("unpin", name), as_json=as_json)


def _wait_loaded(target: Target, found: dict[str, Any]) -> dict[str, Any]:
    """Wait until a model is loaded. Raises ApplianceError with cause and fix if it is not."""
    now = _wait(target, found, lambda now: now["state"] == Residency.LOADED or not now["load_requested"])
    if now["state"] == Residency.LOADED:
        return now
    name = now["name"]
    if now["state"] == Residency.FAILED:
        cause = clean(now["problem"]) or "the reason is in its log"
        fix = (
            clean(now["remedy"])
            or f"`llama-gguf status` shows more; the log is {target.run.log(target.program_of(name))}"
        )
        raise ApplianceError(f"{name} could not be loaded: {cause}", hint=fix)
    raise ApplianceError(
        f"{name} is {now['state']}, not loaded: another operator unloaded it, or it gave way",
        hint="`llama-gguf models pin` loads a model and keeps it in memory",
    )


def _wait(target: Target, found: dict[str, Any], is_done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask until it is done, and show on stderr how far it is: on one line of a terminal, else every few seconds."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    engine = target.run.of_engine(target.program_of(found["name"]))
    begun = shown = time.monotonic()
    with console.status(Text(_progress(found, engine, 0.0))) as status:
        while not is_done(found):
            time.sleep(_POLL_SECONDS)
            found = next((one for one in target.calls.residency() if one["name"] == found["name"]), found)
            now = time.monotonic()
            text = _progress(found, engine, now - begun)
            status.update(Text(text))
            if not console.is_terminal and now - shown >= LINE_SECONDS:
                shown = now
                click.echo(text, err=True)
    return found


def _progress(found: dict[str, Any], engine: RunDir, seconds: float) -> str:
    """Return one line about a model on its way: what it waits for, for how long, and what is usual."""
    parts = [f"{found['name']}: {found['state']}"]
    if found["state"] == Residency.LOADING and (phase := engine_phase.read(engine.engine_phase)) is not None:
        parts.append(str(phase.phase))
        if phase.bytes_done is not None and phase.bytes_total:
            parts.append(f"{100 * phase.bytes_done // phase.bytes_total} %")
    elif found["load_requested"]:
        parts.append("waits for memory that others use")
    elif found["running"]:
        parts.append(f"waits for {found['running']} requests to end")
    parts.append(f"{seconds:.0f} s")
    if found["load_requested"] and found["load_seconds"]:
        parts[-1] += f" (the last load took {found['load_seconds']:.0f} s)"
    return ", ".join(parts)


def _report(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    notes = ", pinned" if found["pinned"] else ""
    wanted = ", asked to load" if found["load_requested"] else ", asked to unload" if found["unload_requested"] else ""
    click.echo(f"{found['name']}: {found['state']}{notes}{wanted}")
