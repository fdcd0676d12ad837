"""`llama-gguf plan`: what `up` would run here, and whether the model fits in memory, without starting anything."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console

from llama_gguf.cli.commands.check import on_this_machine
from llama_gguf.cli.config_options import chosen, config_argument, load_or_exit
from llama_gguf.cli.plan.data import as_data
from llama_gguf.cli.plan.facts import gather
from llama_gguf.cli.plan.view import card_lines, show
from llama_gguf.errors import ExitCode
from llama_gguf.models.memory.devices import CARDS, MIB, DeviceError, Gpu, bytes_of, gpus_of_names, gpus_of_sizes
from llama_gguf.settings.messages.report import as_data as problems_as_data
from llama_gguf.settings.messages.report import explain

T = TypeVar("T")

AUTO = "auto"


class DeviceOption(click.ParamType[T]):
    """An option whose value is read by a function that raises DeviceError."""

    def __init__(self, name: str, read: Callable[[str], T]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: str | T, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Return what `value` means."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except DeviceError as error:
            self.fail(str(error), param, ctx)


def _unless_auto(read: Callable[[str], tuple[Gpu, ...]]) -> Callable[[str], tuple[Gpu, ...] | None]:
    return lambda text: None if text.strip().lower() == AUTO else read(text)


@click.command()
@config_argument
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Format of the output.")
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option(
    "--device",
    type=DeviceOption("cards", _unless_auto(gpus_of_names)),
    metavar="CARDS",
    help="GPUs to plan for, as in 'RTX 4090', '2x L40S' or 'RTX 3090, RTX 3060'; auto = those of this machine.",
)
@click.option(
    "--vram",
    type=DeviceOption("sizes", _unless_auto(gpus_of_sizes)),
    metavar="SIZES",
    help="GPUs to plan for by their memory: 24GB as a card is sold, 24GiB exactly, 2x24GB; 0 = no GPU.",
)
@click.option(
    "--ram",
    type=DeviceOption("size", bytes_of),
    metavar="SIZE",
    help="Main memory to plan for, as in 64GiB; default: this machine's, unless GPUs are given.",
)
@click.option("--list-devices", is_flag=True, help="List the cards that --device knows, and their memory.")
def plan(
    *,
    file: Path | None,
    config: Path | None,
    sets: tuple[str, ...],
    form: str,
    device: tuple[Gpu, ...] | None,
    vram: tuple[Gpu, ...] | None,
    ram: int | None,
    list_devices: bool,
) -> int:
    """Print what `up` would run with FILE, and the memory it needs, without running it.

    Exits with 71 if it does not fit into that memory, and as `up` would if a file that it needs cannot be read.
    """
    if list_devices:
        _list_cards(form)
        return ExitCode.OK
    if device is not None and vram is not None:
        raise click.UsageError("--device and --vram both name the GPUs; give one of them")
    loaded = load_or_exit(chosen(file, config), sets)
    facts = gather(loaded, os.environ, gpus=device if vram is None else vram, ram=ram)
    problems = on_this_machine(loaded, os.environ)
    if problems:
        click.echo(explain(problems, loaded.text), err=True)
    if form == "json":
        report = {**as_data(facts), "problems": problems_as_data((*loaded.problems, *problems))}
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        show(facts, Console(soft_wrap=True, highlight=False))
    return facts.exit_code


def _list_cards(form: str) -> None:
    if form == "text":
        click.echo("\n".join(card_lines()))
        return
    found = [
        {
            "name": card.name,
            "market": market,
            "sold_gb": card.sold_gb,
            "total_bytes": card.total_mib * MIB,
            "usable_bytes": card.usable_bytes,
        }
        for market, cards in CARDS.items()
        for card in cards
    ]
    click.echo(json.dumps(found, indent=1))
