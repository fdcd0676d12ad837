"""`llama-gguf plan`: what `up` would run here, and whether the model fits in memory, without starting anything."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_gguf.cli.commands.check import on_this_machine
from llama_gguf.cli.config_options import chosen, config_argument, load_or_exit
from llama_gguf.cli.plan_facts import PlanFacts, as_data, gather
from llama_gguf.models.inventory import ModelFileStatus
from llama_gguf.models.memory.plan import MemoryPlan
from llama_gguf.models.source import Named, OnDisk
from llama_gguf.settings.messages.report import as_data as problems_as_data
from llama_gguf.settings.messages.report import explain

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)(?P<binary>i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class Size(click.ParamType[int]):
    """A number of bytes: `24GiB`, `24G` (the same, as for GPUs), `16000MB`."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes that `value` means."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is not a size; write 24GiB, 16000MiB or a number of bytes", param, ctx)
        decimal = value.strip().upper().endswith("B") and not match["binary"] and match["unit"]
        return int(float(match["number"]) * (1000 if decimal else 1024) ** _POWERS[match["unit"].upper()])


@click.command()
@config_argument
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Format of the output.")
@click.option("--vram", type=Size(), help="Total GPU memory to plan for, as in 24GiB; 0 = no GPU.")
@click.option("--ram", type=Size(), help="Main memory to plan for, as in 64GiB.")
def plan(
    *,
    file: Path | None,
    config: Path | None,
    sets: tuple[str, ...],
    form: str,
    vram: int | None,
    ram: int | None,
) -> None:
    """Print what `up` would run with FILE, and the memory it needs, without running it."""
    loaded = load_or_exit(chosen(file, config), sets)
    facts, problems = gather(loaded, os.environ, vram=vram, ram=ram), on_this_machine(loaded, os.environ)
    if problems:
        click.echo(explain(problems, loaded.text), err=True)
    if form == "json":
        report = {**as_data(facts), "problems": problems_as_data((*loaded.problems, *problems))}
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        show(facts, Console(soft_wrap=True, highlight=False))


def show(facts: PlanFacts, console: Console) -> None:
    """Print the facts as text."""
    for title, rows in _sections(facts):
        console.print(Text(title, style="bold"))
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            console.print(Text(f"  {name:<{width}}  {value}"))
    console.print(Text("llama-server command", style="bold"))
    for line in command_lines(str(facts.engine.binary or "llama-server"), facts.argv):
        console.print(Text(f"  {line}"))
    _show_memory(facts, console)


def _sections(facts: PlanFacts) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    locations, run, settings = facts.locations, facts.locations.run, facts.settings
    yield (
        "directories",
        [
            ("configuration", str(facts.config or "environment and defaults")),
            ("data", f"{locations.data_dir} ({locations.data_dir_reason})"),
            ("run", f"{run.root} ({locations.run_dir_reason})"),
            ("models", str(locations.models_dir)),
            ("logs", str(locations.logs_dir)),
            ("keys", str(locations.keys_file)),
        ],
    )
    rows = [("served as", ", ".join(facts.names))]
    rows += [(file.wanted.setting, f"{file.path} ({_origin_note(file)})") for file in facts.files]
    yield "model", rows
    gpus = [f"{device.id}: {device.name}, {human(device.total_bytes)}" for device in facts.engine.devices]
    yield (
        "engine",
        [
            ("program", str(facts.engine.binary or "none")),
            ("version", facts.engine.version or "unknown"),
            ("CPU variant", _cpu_variant(facts)),
            ("GPUs", "; ".join(gpus) or ("none detected" if not facts.engine.problem else "unknown")),
            *([("problem", facts.engine.problem)] if facts.engine.problem else []),
        ],
    )
    yield (
        "listening",
        [
            ("API", f"{settings.gateway.host}:{settings.gateway.port}"),
            ("health", f"{settings.health.host}:{settings.health.port}{settings.health.path}"),
            ("engine", str(run.engine_socket)),
            ("supervisord", str(run.supervisord_socket)),
        ],
    )
    yield "programs", [(program.name, shlex.join(program.argv)) for program in facts.programs]


def _cpu_variant(facts: PlanFacts) -> str:
    """Return which variant of the CPU code would run, and why."""
    variant = facts.engine.variant
    if variant is None:
        return "unknown" if facts.engine.problem else "llama-server's own choice"
    if variant.pinned:
        return f"{variant.variant} (engine.cpu_variant)"
    crashed = ", ".join(variant.rejected_names)
    return f"{variant.variant} ({f'crashed on this machine: {crashed}' if crashed else 'the best for this CPU'})"


def _origin_note(file: ModelFileStatus) -> str:
    origin = file.wanted.origin
    if file.present:
        state = f"{human(file.bytes_on_disk)} on disk"
    else:
        state = "does not exist" if isinstance(origin, OnDisk | Named) else "not on disk yet"
    return state if isinstance(origin, OnDisk) else f"{state}; from {file.wanted.description}"


def command_lines(program: str, argv: tuple[str, ...]) -> list[str]:
    """Return a command to paste into a shell, one argument with its value per line."""
    words = [shlex.quote(program)]
    for item in argv:
        if item.startswith("--") or not words[-1].startswith("--") or " " in words[-1]:
            words.append(shlex.quote(item))
        else:
            words[-1] += f" {shlex.quote(item)}"
    return [f"{word} \\" for word in words[:-1]] + words[-1:]


def _show_memory(facts: PlanFacts, console: Console) -> None:
    console.print(Text("memory", style="bold"))
    memory = facts.memory
    if memory is None:
        console.print(Text(f"  unknown: {facts.memory_problem}"))
        return
    table = Table("", "GPU", "main memory", box=None, padding=(0, 2, 0, 2))
    for item in memory.items:
        table.add_row(item.name, human(item.device) if item.device else "", human(item.host) if item.host else "")
    table.add_row("total", human(memory.device), human(memory.host), style="bold")
    table.add_row("available", _capacity(memory.device_capacity), _capacity(memory.host_capacity))
    console.print(table)
    console.print(Text(f"  {verdict(memory)}", style="red" if memory.verdict == "does not fit" else "green"))
    for line in memory.advice:
        console.print(Text(f"  advice: {line}"))
    for line in memory.unknown:
        console.print(Text(f"  not counted: {line}"))
    for line in memory.assumptions:
        console.print(Text(f"  assumed: {line}", style="dim"))


def verdict(memory: MemoryPlan) -> str:
    """Return whether it fits, and where the layers are, in one sentence."""
    layers = (
        f"{memory.layers_on_device} of {memory.layers} layers on the GPU" if memory.layers_on_device else "on the CPU"
    )
    return f"{memory.verdict}: {layers}, {memory.context_per_slot} tokens of context for each slot"


def _capacity(size: int | None) -> str:
    return "unknown" if size is None else human(size)


def human(size: int) -> str:
    """Return a size in MiB or GiB."""
    mebibytes = size / (1 << 20)
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 10_240 else f"{mebibytes:.0f} MiB"
