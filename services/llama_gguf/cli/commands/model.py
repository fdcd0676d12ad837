"""`llama-gguf model`: the metadata of the model file, and downloading it before the first start."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from llama_gguf.cli.commands.models import pull_models
from llama_gguf.cli.config_options import config_options, load_or_exit
from llama_gguf.cli.plan.view import human
from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.facts import has_chat_template
from llama_gguf.models.gguf.header import Header, read_header
from llama_gguf.models.inventory import all_tensors, file_status
from llama_gguf.models.local_files import check_readable
from llama_gguf.models.source import plan_sources, split_names
from llama_gguf.settings import locate


@click.group()
def model() -> None:
    """Download the model, or show its metadata."""


@model.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(*, path: Path | None, config: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Show the metadata of the GGUF file PATH, by default the configured model."""
    file = path or _configured(config, sets)
    check_readable(file, "model")
    facts = describe(read_header(file))
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {_text(name, value)}")


def _configured(config: Path | None, sets: tuple[str, ...]) -> Path:
    settings = load_or_exit(config, sets).settings
    file = file_status(plan_sources(settings.model, locate(settings, os.environ), os.environ).model)
    if not file.present:
        raise ModelError(
            f"the model is not on disk yet: {file.wanted.description}",
            code="model_not_found",
            hint="run `llama-gguf models pull`",
        )
    return file.path


def describe(header: Header) -> dict[str, Any]:
    """Return the metadata in a header, as JSON values."""
    architecture = read_architecture(header)
    tensors = all_tensors(header.path)
    types: Counter[str] = Counter()
    for tensor in tensors:
        types[tensor.type_name] += tensor.elements
    return {
        "path": str(header.path),
        "bytes": sum(header.path.with_name(name).stat().st_size for name in split_names(header.path.name)),
        "complete": header.end_of_data <= header.file_bytes,
        "name": header.text("general.name"),
        "architecture": architecture.name,
        "parameters": sum(tensor.elements for tensor in tensors),
        "types": dict(types.most_common()),
        "trained_context": architecture.trained_context,
        "layers": len(architecture.layers),
        "windowed_layers": sum(layer.window > 0 for layer in architecture.layers),
        "vocabulary": architecture.vocabulary,
        "chat_template": has_chat_template(header),
        "license": header.text("general.license"),
        "parts": len(split_names(header.path.name)),
    }


def _text(name: str, value: object) -> str:
    if name == "bytes" and isinstance(value, int):
        return human(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        total = sum(value.values()) or 1
        return ", ".join(f"{kind} {count / total:.0%}" for kind, count in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


@model.command()
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def download(*, config: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Download and verify the configured model, or all of several; the same as `models pull`."""
    pull_models(config, sets, (), as_json=as_json)
