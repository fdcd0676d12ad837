"""`llama-gguf models`: the files of the models on disk: listed, downloaded, verified and removed."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from llama_gguf import logs
from llama_gguf.cli.commands import models_control
from llama_gguf.cli.config_options import config_options, json_option, load_or_exit
from llama_gguf.cli.download_progress import reporting
from llama_gguf.cli.gateway_calls import model_states
from llama_gguf.cli.models_view import label, missing_rows, print_states, print_table, row
from llama_gguf.cli.plan.view import human
from llama_gguf.cli.shelf import Shelf, chosen_models, open_shelf
from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.checksum import file_sha256
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.model_files import ModelFiles, Reporter
from llama_gguf.models.resolve import resolve_with_retries, survey_all
from llama_gguf.models.shelf.prune import prunable, remove
from llama_gguf.models.shelf.scan import Stored, published_sha256
from llama_gguf.models.shelf.use import files_of
from llama_gguf.models.source import AtUrl, OnHub, Wanted
from llama_gguf.settings import Settings, locate
from llama_gguf.settings.one_model import OneModel, each_model
from llama_gguf.states import Phase

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", "-n", is_flag=True, help="Show what would be removed, and remove nothing.")
names_argument = click.argument("names", metavar="[NAME]...", nargs=-1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """List, download, verify and remove the files of the models; load and unload those of a running appliance."""


for command in (models_control.load, models_control.unload, models_control.pin, models_control.unpin):
    models.add_command(command)


@models.command("list")
@config_options
@json_option
def list_(*, config: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """List the files on disk: sizes, versions, last use, and which model of the configuration uses each.

    Files of the configuration that are not on disk yet are listed too. Of several models in a running appliance it
    shows which are loaded; with a key in LLAMA_GGUF_ADMIN_KEY also their requests and memory.
    """
    shelf = _shelf(config, sets)
    states = model_states(shelf.locations.run, os.environ)
    rows = [row(one, shelf) for one in shelf.stored] + list(missing_rows(shelf))
    if as_json:
        found = {"models_dir": str(shelf.locations.models_dir), "files": rows, "models": states}
        click.echo(json.dumps(found, indent=1))
        return
    if states:
        print_states(states)
        click.echo()
    if not rows:
        click.echo(f"No models in {shelf.locations.models_dir}. `llama-gguf models pull` downloads what is configured.")
        return
    print_table(rows)
    unused = prunable(shelf.stored, shelf.uses)
    if unused:
        freed = human(sum(one.frees for one in unused))
        click.echo(f"`llama-gguf models prune` removes {len(unused)} of them: {freed}.", err=True)


@models.command()
@names_argument
@config_options
@json_option
def pull(*, names: tuple[str, ...], config: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Download and verify what is missing of the models NAME, by default of all; resumes interrupted downloads.

    Whether all of it exists and fits on the disk is determined before the first byte.
    """
    pull_models(config, sets, names, as_json=as_json)


def pull_models(config: Path | None, sets: tuple[str, ...], names: tuple[str, ...], *, as_json: bool) -> None:
    """Download the models and print their paths."""
    settings = _load(config, sets)
    locations, chosen = locate(settings, os.environ), chosen_models(each_model(settings), names)
    found: dict[str, dict[str, str]] = {}
    with reporting(Console(stderr=True)) as reporter:
        if len(chosen) > 1:
            survey_all({one.place: one.settings.model for one in chosen}, locations, os.environ, reporter)
        for one in chosen:
            files = resolve_with_retries(one.settings.model, locations, os.environ, reporter, place=one.place)
            found[one.key] = _paths(files)
    if as_json:
        click.echo(json.dumps(found if settings.models else found[""], indent=1, ensure_ascii=False))
        return
    for key, paths in found.items():
        for name, path in paths.items():
            click.echo(f"{f'{key}.' if key else ''}{name}: {path}")


def _paths(files: ModelFiles) -> dict[str, str]:
    named = {"model": files.model, "mmproj": files.mmproj, "draft": files.draft}
    named |= {f"lora[{index}]": adapter.path for index, adapter in enumerate(files.lora)}
    return {name: str(path) for name, path in named.items() if path}


@models.command()
@names_argument
@config_options
@json_option
@click.pass_context
def verify(
    context: click.Context, *, names: tuple[str, ...], config: Path | None, sets: tuple[str, ...], as_json: bool
) -> None:
    """Check the files of the models NAME, by default of all: complete, and with the SHA-256 that is known.

    That is the one in the configuration, or the one the Hub has published. Exits 78 if a file is damaged or missing.
    """
    shelf = _shelf(config, sets)
    rows = []
    with reporting(Console(stderr=True)) as reporter:
        for one in chosen_models(shelf.models, names):
            for wanted in shelf.wanted(one):
                rows += [_verified(path, wanted, reporter) for path in files_of(wanted)] or [_absent(wanted)]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    for found in () if as_json else rows:
        click.echo(f"{found['model']}: {found['file']}: {found['result']}")
    if any(not found["ok"] for found in rows):
        context.exit(ExitCode.CONFIG)


def _verified(path: Path, wanted: Wanted, reporter: Reporter) -> dict[str, Any]:
    """Return the result for one file, read from its first byte to its last if a digest is known."""
    place = wanted.setting
    first = path == files_of(wanted)[0]
    try:
        header = read_header(path)
    except ModelError as error:
        return {"model": place, "file": str(path), "ok": False, "result": f"damaged: {error.message}"}
    if header.file_bytes < header.end_of_data:
        result = f"truncated: {header.file_bytes} of {header.end_of_data} bytes"
        return {"model": place, "file": str(path), "ok": False, "result": result}
    expected = (wanted.sha256 if first else None) or published_sha256(path)
    if expected is None:
        return {"model": place, "file": str(path), "ok": True, "result": "complete; no SHA-256 is known"}
    reporter.phase(Phase.VERIFYING, str(path.name))
    digest = file_sha256(path, reporter)
    result = "SHA-256 is right" if digest == expected else f"damaged: has the SHA-256 {digest}, not {expected}"
    return {"model": place, "file": str(path), "ok": digest == expected, "result": result}


def _absent(wanted: Wanted) -> dict[str, Any]:
    result = "missing: `llama-gguf models pull` downloads it" if isinstance(wanted.origin, OnHub | AtUrl) else "missing"
    return {"model": wanted.setting, "file": wanted.description, "ok": False, "result": result}


@models.command()
@config_options
@dry_run_option
@yes_option
@json_option
def prune(*, config: Path | None, sets: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove unfinished downloads and old versions that no model uses.

    What the configuration, a running appliance or a download in progress uses is not removed. Where several machines
    share the volume, give the configuration that uses the most.
    """
    shelf = _shelf(config, sets)
    unused = [one for one in prunable(shelf.stored, shelf.uses) if not shelf.running.of(one)]
    _remove(unused, shelf, dry_run=dry_run, yes=yes, as_json=as_json)


@models.command("remove")
@click.argument("name")
@config_options
@dry_run_option
@yes_option
@json_option
def remove_(*, name: str, config: Path | None, sets: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove the downloaded files of the model NAME, or the file NAME as `models list` shows it.

    Files that another model or a running appliance uses stay; a model's files that were not downloaded, too.
    """
    shelf = _shelf(config, sets)
    named = [one for one in shelf.stored if name in (one.label, str(one.path))]
    chosen = named or _downloaded(chosen_models(shelf.models, (name,))[0], shelf)
    users = sorted({user for one in chosen for user in (shelf.used_by(one) if named else shelf.running.of(one))})
    if users:
        raise ModelError(
            f"{name} is used by {', '.join(users)}",
            code="model_in_use",
            hint="stop the appliance, or take the model out of the configuration",
        )
    _remove(chosen, shelf, dry_run=dry_run, yes=yes, as_json=as_json)


def _downloaded(model: OneModel, shelf: Shelf) -> list[Stored]:
    """Return the files of `model` that can be downloaded again and that no other model uses."""
    wanted = [one for one in shelf.wanted(model) if isinstance(one.origin, OnHub | AtUrl)]
    own = {os.path.realpath(path) for one in wanted for path in files_of(one)}
    return [
        one
        for one in shelf.stored
        if shelf.uses.of(one) == (model.place,) and (one.state == "partial" or os.path.realpath(one.path) in own)
    ]


def _remove(unused: list[Stored], shelf: Shelf, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Show what is removed, ask, and remove it."""
    total = sum(one.frees for one in unused)
    for one in () if as_json else unused:
        click.echo(f"{label(one)}: {human(one.frees)}")
    if dry_run or not unused:
        removed = []
    else:
        if not yes:
            click.confirm(f"Remove {len(unused)} files, {human(total)}?", abort=True, err=as_json)
        removed = [one for one in unused if remove(one, shelf.last_use)]
    if as_json:
        rows = [row(one, shelf) | {"removed": one in removed} for one in unused]
        click.echo(json.dumps({"files": rows, "bytes_removed": sum(one.frees for one in removed)}, indent=1))
    elif not unused:
        click.echo("Nothing to remove.")
    elif dry_run:
        click.echo(f"{len(unused)} files, {human(total)}; nothing is removed with --dry-run.")
    else:
        click.echo(f"Removed {len(removed)} files, {human(sum(one.frees for one in removed))}.")
    for one in () if dry_run else unused:
        if one not in removed:
            click.echo(f"warning: {label(one)}: not removed, it is being downloaded", err=True)


def _load(config: Path | None, sets: tuple[str, ...]) -> Settings:
    settings = load_or_exit(config, sets).settings
    logs.configure("models", format="text", level="warning", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.ERROR)
    return settings


def _shelf(config: Path | None, sets: tuple[str, ...]) -> Shelf:
    settings = _load(config, sets)
    return open_shelf(settings, locate(settings, os.environ), os.environ)
