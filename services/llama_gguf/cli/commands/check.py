"""`llama-gguf check`: whether a configuration is valid, and can run on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from llama_gguf.cli.config_options import chosen, config_argument, find_config
from llama_gguf.cli.request_rules import rule_problems
from llama_gguf.errors import ExitCode, Problem
from llama_gguf.models.inventory import all_wanted, file_status
from llama_gguf.models.source import plan_sources
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import Locations, Settings, locate
from llama_gguf.settings.checks.machine import check_engine_files, check_files
from llama_gguf.settings.checks.table import replaced
from llama_gguf.settings.loading.load import InvalidConfigError, Loaded, load
from llama_gguf.settings.messages.report import as_data, count, explain
from llama_gguf.settings.one_model import each_model
from llama_gguf.settings.sections.sources import DOWNLOADED, artifacts_of, sources_of


@click.command()
@config_argument
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Format of the report.")
@click.option(
    "--no-files", is_flag=True, help="Check only the configuration, not the files and variables of this machine."
)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
def check(
    *,
    file: Path | None,
    config: Path | None,
    sets: tuple[str, ...],
    form: Literal["text", "json"],
    no_files: bool,
    strict: bool,
) -> int:
    """Check the configuration FILE and the files it refers to; exit 78 if anything is wrong."""
    path = find_config(chosen(file, config), os.environ)
    problems, text = examine(path, sets, os.environ, files=not no_files)
    failed = any(problem.severity == "error" or strict for problem in problems)
    name = str(path) if path else "environment"
    if form == "json":
        report = {"file": str(path) if path else None, "ok": not failed, "problems": as_data(problems)}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        if problems:
            click.echo(explain(problems, text), err=True)
        click.echo(f"{name}: {count(problems)}" if failed else _ok(name, problems), err=failed)
    return ExitCode.CONFIG if failed else ExitCode.OK


def examine(
    path: Path | None, sets: tuple[str, ...], env: Mapping[str, str], *, files: bool
) -> tuple[tuple[Problem, ...], str]:
    """Return every problem of a configuration, and the text that their line numbers refer to."""
    try:
        loaded = load(path, env, sets)
    except InvalidConfigError as error:
        return error.problems, error.text
    found = loaded.problems + rule_problems(loaded)
    return found + (on_this_machine(loaded, env) if files else ()), loaded.text


def on_this_machine(loaded: Loaded, env: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return the problems of a valid configuration on this machine, with their positions."""
    locations = locate(loaded.settings, env)
    found = check_files(loaded.settings, locations, env)
    engines: dict[str, list[Problem]] = {}  # asking an engine for its GPUs takes a second
    for one in each_model(loaded.settings):
        found += [replaced(problem, one, own=True) for problem in _files(one.settings, locations, env)]
        same = one.settings.engine.model_dump_json()
        if same not in engines:
            engines[same] = _engine(one.settings, locations, env)
        found += [replaced(problem, one) for problem in engines[same]]
    if not any(problem.severity == "error" for problem in found):
        found += _memory(loaded, locations, env)
    return loaded.with_origins(list(dict.fromkeys(found)))


def _memory(loaded: Loaded, locations: Locations, env: Mapping[str, str]) -> list[Problem]:
    """Return which of several models never fit into the memory that they share, once all their files are here."""
    if not loaded.settings.models:
        return []
    from llama_gguf.cli.plan.facts import gather  # noqa: PLC0415 - reads every header

    models = each_model(loaded.settings)
    sources = [plan_sources(one.settings.model, locations, env) for one in models]
    if not all(file_status(wanted).present for source in sources for wanted in all_wanted(source)):
        return []
    facts = gather(loaded, env)
    never = facts.together.never_fitting if facts.together else ()
    return [
        Problem(
            "does-not-fit",
            f"{one.place}: never fits into the memory of this machine beside what is always loaded",
            one.place,
            hint="see llama-gguf plan; reduce its context or slots, or load others on demand",
            severity="error" if one.required else "warning",
        )
        for one in models
        if one.key in never
    ]


def _files(settings: Settings, locations: Locations, env: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the files of the only model of `settings`, those to be downloaded included."""
    from llama_gguf.models.checks.files import file_problems, token_problems  # noqa: PLC0415 - costs 20 ms
    from llama_gguf.models.preflight import download_problems  # noqa: PLC0415 - as above

    found = [*file_problems(settings, locations, env), *token_problems(settings, locations, env)]
    if any(sources_of(artifact)[0] in DOWNLOADED for _, artifact in artifacts_of(settings.model)):
        found += download_problems(settings, locations, env)
    return found


def _engine(settings: Settings, locations: Locations, env: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the engine of the only model of `settings`, asking the engine itself."""
    if found := check_engine_files(settings):
        return found
    from llama_gguf.engine.checks.machine import engine_problems  # noqa: PLC0415 - only if files are checked

    return engine_problems(Snapshot(settings, locations), env)


def _ok(name: str, problems: tuple[Problem, ...]) -> str:
    return f"{name}: ok" + (f" ({count(problems)})" if problems else "")
