"""`llama-gguf gen`: writes the files that are generated from the code.

Every file is the result of a function `() -> str` in the table here, in the package that it belongs to.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from llama_gguf.errors import ExitCode
from llama_gguf.settings.json_schema import json_schema

FILES: Mapping[str, str] = {
    "config.schema.json": "llama_gguf.cli.commands.gen:config_schema",
    "reference.md": "llama_gguf.cli.generate.reference:reference",
    "engine/flags.json": "llama_gguf.engine.flags:flag_dump",
    "openapi.json": "llama_gguf.cli.generate.openapi:openapi",
}
"""File below schema/ -> the function that returns its text."""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("schema"), help="Directory to write into.")
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit 1 if a file is stale.")
def gen(*, out: Path, only_check: bool) -> int:
    """Regenerate the files in schema/."""
    stale = [name for name, content in generate() if _read(out / name) != content]
    if only_check:
        for name in stale:
            click.echo(f"{out / name} is stale: run `make gen`", err=True)
        return 1 if stale else ExitCode.OK
    for name, content in generate():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content, encoding="utf-8")
        click.echo(f"{out / name}{'' if name in stale else ' (unchanged)'}")
    return ExitCode.OK


def generate() -> Iterator[tuple[str, str]]:
    """Yield the name and text of every generated file."""
    for name, target in FILES.items():
        yield name, _call(target)


def _call(target: str) -> str:
    module, _, function = target.partition(":")
    return str(getattr(importlib.import_module(module), function)())


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def config_schema() -> str:
    """Return config.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
