"""`llama-gguf config`: the effective configuration, the origin of each value, and all variables."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
import yaml
from pydantic import JsonValue

from llama_gguf.cli.config_options import chosen, config_argument, load_or_exit
from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES, PLATFORM_VARIABLES
from llama_gguf.settings.loading.layers import Origin, flatten
from llama_gguf.settings.loading.load import Loaded
from llama_gguf.settings.redaction import mask_value
from llama_gguf.settings.schema_tree import SettingsSchema, dotted, env_name, settings_schema


@click.group()
def config() -> None:
    """Show the effective configuration and every variable."""


@config.command()
@config_argument
@click.option("--origin", is_flag=True, help="Show the origin of each value.")
@click.option("--changed", is_flag=True, help="Omit settings that have their default.")
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="Format of the output.")
def show(
    *,
    file: Path | None,
    config: Path | None,
    sets: tuple[str, ...],
    origin: bool,
    changed: bool,
    form: Literal["yaml", "json"],
) -> None:
    """Print the effective configuration (FILE, variables and flags together), secrets masked."""
    loaded = load_or_exit(chosen(file, config), sets)
    tree = mask_value("", loaded.settings.model_dump(mode="json", exclude_defaults=changed))
    if not isinstance(tree, dict):  # a model dumps as an object
        raise TypeError("the settings are not a mapping")
    if form == "json":
        data = {"settings": tree, "origins": dict(origins(tree, loaded))} if origin else tree
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif origin:
        click.echo(annotated(tree, loaded))
    else:
        click.echo(_yaml(tree).rstrip())


def _yaml(value: JsonValue, *, default_flow_style: bool | None = None, width: int = 1000) -> str:
    return yaml.safe_dump(
        value, default_flow_style=default_flow_style, width=width, sort_keys=False, allow_unicode=True
    ).removesuffix("...\n")


def origins(tree: dict[str, JsonValue], loaded: Loaded) -> Iterator[tuple[str, str]]:
    """Yield the dotted name of every setting and the origin of its value."""
    for leaf in flatten(tree, Origin("default")):
        name = dotted(leaf.path)
        yield name, str(loaded.origin(name))


def annotated(tree: dict[str, JsonValue], loaded: Loaded) -> str:
    """Return `tree` as YAML with the origin of each value as a comment after it."""
    lines = list(_annotated(tree, loaded, "", ""))
    width = min(60, max((len(line) for line, note in lines if note), default=0))
    return "\n".join(f"{line:<{width}}  # {note}" if note else line for line, note in lines)


def _annotated(tree: dict[str, JsonValue], loaded: Loaded, above: str, indent: str) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, dict):
            yield f"{indent}{key}:", ""
            yield from _annotated(value, loaded, name, indent + "  ")
        else:
            shown = _yaml(value, default_flow_style=True, width=100_000)
            yield f"{indent}{key}: {shown.strip()}", str(loaded.origin(name))


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable that is read."""

    name: str
    setting: str  # "" if it sets none
    kind: Literal["setting", "old name", "retired", "platform"]
    note: str


def variables(schema: SettingsSchema) -> Iterator[Variable]:
    """Yield every variable: one per setting, those of platforms, and the legacy ones."""
    for leaf in schema.leaves():
        yield Variable(env_name(leaf.path), leaf.name, "setting", str(leaf.node.get("description", "")))
    for platform in PLATFORM_VARIABLES:
        note = f"{platform.platform}: {platform.note}" if platform.note else platform.platform
        yield Variable(platform.name, dotted(platform.setting), "platform", note)
    for legacy in LEGACY_VARIABLES:
        setting = dotted(legacy.setting)
        yield Variable(legacy.name, setting, "old name" if setting else "retired", legacy.note)


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--set-only", is_flag=True, help="Only the variables that are set here.")
def env(as_json: bool, set_only: bool) -> None:
    """List every environment variable that is read; a * marks those that are set here."""
    listed = [one for one in variables(settings_schema()) if not set_only or one.name in os.environ]
    if as_json:
        data = [{**asdict(one), "set": one.name in os.environ} for one in listed]
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    _table(listed)


_TITLES = {
    "setting": "One per setting (lists as JSON, or separated by commas)",
    "platform": "Set by platforms, or read by other software",
    "old name": "Legacy variables, still read",
    "retired": "Legacy variables without effect",
}


def _table(listed: list[Variable]) -> None:
    """Print one line per variable: truncated to the width of a terminal, complete if stdout is not one."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100_000
    column = max((len(one.name) for one in listed), default=0)
    for kind, title in _TITLES.items():
        rows = [one for one in listed if one.kind == kind]
        if rows:
            click.secho(f"{title}:", bold=True)
        for one in rows:
            target = f"{one.setting}: " if one.setting and kind != "setting" else ""
            mark = "*" if one.name in os.environ else " "
            click.echo(f"{mark} {one.name:<{column}}  {target}{one.note}".rstrip(" :")[:width])
