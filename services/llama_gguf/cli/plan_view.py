"""What `plan` prints for a person. Columns keep their width in a pipe and in a narrow terminal."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from llama_gguf.cli.plan_facts import PlanFacts
from llama_gguf.models.inventory import ModelFileStatus
from llama_gguf.models.memory.devices import CARDS, MIB, Gpu
from llama_gguf.models.memory.plan import MemoryPlan
from llama_gguf.models.source import Named, OnDisk


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
    if facts.gpus:
        console.print(Text(f"  planned for {', '.join(_counted(facts.gpus))}"))
    memory = facts.memory
    if memory is None:
        problem = facts.memory_problem
        console.print(Text(f"  unknown: {problem.message if problem else ''}"))
        if problem and problem.hint:
            console.print(Text(f"  hint: {problem.hint}"))
        return
    rows = [("", "GPU", "main memory")]
    rows += [
        (item.name, human(item.device) if item.device else "", human(item.host) if item.host else "")
        for item in memory.items
    ]
    rows.append(("total", human(memory.device), human(memory.host)))
    rows.append(("available", _capacity(memory.device_capacity), _capacity(memory.host_capacity)))
    for line in columns(rows, numbers=(1, 2)):
        console.print(Text(f"  {line}", style="bold" if line.startswith("total") else ""))
    console.print(Text(f"  {verdict(memory)}", style="red" if memory.verdict == "does not fit" else "green"))
    for line in memory.advice:
        console.print(Text(f"  advice: {line}"))
    for line in memory.unknown:
        console.print(Text(f"  not counted: {line}"))
    for line in memory.assumptions:
        console.print(Text(f"  assumed: {line}", style="dim"))


def _counted(gpus: tuple[Gpu, ...]) -> list[str]:
    """Return each kind of GPU with its number and memory."""
    return [
        f"{count} x {gpu.name} ({human(gpu.total_bytes)})" if count > 1 else f"{gpu.name} ({human(gpu.total_bytes)})"
        for gpu, count in Counter(gpus).items()
    ]


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


def columns(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[str]:
    """Return rows as lines with aligned columns; those with the given numbers are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in numbers else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def card_lines() -> list[str]:
    """Return the table of the cards that can be planned for."""
    rows = [("card", "sold with", "usable", "market")]
    for market, cards in CARDS.items():
        rows += [(card.name, f"{card.sold_gb} GB", f"{card.usable_bytes // MIB} MiB", market) for card in cards]
    return columns(rows, numbers=(1, 2))
