"""What `plan` prints for a person. Columns keep their width in a pipe and in a narrow terminal."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from llama_gguf.cli.plan.facts import EngineFacts, PlanFacts, PlannedModel, Together
from llama_gguf.models.inventory import ModelFileStatus
from llama_gguf.models.memory.devices import CARDS, MIB, Gpu
from llama_gguf.models.memory.plan import MemoryPlan
from llama_gguf.models.memory.several_gpus import SeveralGpusPlan, Share
from llama_gguf.models.source import Named, OnDisk
from llama_gguf.settings.sections.engine_parts.auto import given

_MAX_SETS_SHOWN = 6


def show(facts: PlanFacts, console: Console) -> None:
    """Print the facts as text."""
    for title, rows in _sections(facts):
        console.print(Text(title, style="bold"))
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            console.print(Text(f"  {name:<{width}}  {value}"))
    for model in facts.models:
        console.print(Text(f"llama-server command{_of(model)}", style="bold"))
        for line in command_lines(str(model.engine.binary or "llama-server"), model.argv):
            console.print(Text(f"  {line}"))
    for number, model in enumerate(facts.models):
        console.print(Text(f"memory{_of(model)}", style="bold"))
        if facts.gpus and number == 0:
            console.print(Text(f"  planned for {', '.join(_counted(facts.gpus))}"))
        _show_memory(model, console)
    if facts.together:
        _show_together(facts.together, console)


def _of(model: PlannedModel) -> str:
    return f" of {model.one.key}" if model.one.key else ""


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
    for model in facts.models:
        yield f"model {model.one.key}".rstrip(), _about(model)
    engines: dict[EngineFacts, list[str]] = {}
    for model in facts.models:
        engines.setdefault(model.engine, []).append(model.one.key)
    for engine, names in engines.items():
        yield "engine" if len(engines) == 1 else f"engine of {', '.join(names)}", _about_engine(engine)
    sockets = [(f"engine{_of(model)}", str(model.locations.run.engine_socket)) for model in facts.models]
    yield (
        "listening",
        [
            ("API", f"{settings.gateway.host}:{settings.gateway.port}"),
            ("health", f"{settings.health.host}:{settings.health.port}{settings.health.path}"),
            *sockets,
            ("supervisord", str(run.supervisord_socket)),
        ],
    )
    yield "programs", [(program.name, shlex.join(program.argv)) for program in facts.programs]


def _about(model: PlannedModel) -> list[tuple[str, str]]:
    rows = [("served as", ", ".join(model.names))]
    if model.one.key:
        loaded = "by the first request" if model.one.on_demand else "always"
        rows.append(("loaded", loaded if model.one.required else f"{loaded}; not required"))
    return rows + [(file.wanted.setting, f"{file.path} ({_origin_note(file)})") for file in model.files]


def _about_engine(engine: EngineFacts) -> list[tuple[str, str]]:
    gpus = [f"{device.id}: {device.name}, {human(device.total_bytes)}" for device in engine.devices]
    return [
        ("program", str(engine.binary or "none")),
        ("version", engine.version or "unknown"),
        ("CPU variant", _cpu_variant(engine)),
        ("GPUs", "; ".join(gpus) or ("none detected" if not engine.problem else "unknown")),
        *([("problem", engine.problem)] if engine.problem else []),
    ]


def _cpu_variant(engine: EngineFacts) -> str:
    """Return which variant of the CPU code would run, and why."""
    variant = engine.variant
    if variant is None:
        return "unknown" if engine.problem else "llama-server's own choice"
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


def _show_memory(model: PlannedModel, console: Console) -> None:
    memory, problem = model.memory, model.memory_problem
    if problem:
        console.print(Text(f"  unknown: {problem.message}"))
        if problem.hint:
            console.print(Text(f"  hint: {problem.hint}"))
    _show_choices(model, console)
    if memory is None:
        return
    rows = [("", "GPU", "main memory")]
    rows += [(item.name, _size(item.device), _size(item.host)) for item in memory.items]
    rows.append(("total", human(memory.device), human(memory.host)))
    rows.append(("available", _capacity(memory.device_capacity), _capacity(memory.host_capacity)))
    _show_table(rows, console)
    if isinstance(memory, SeveralGpusPlan):
        _show_table([("each GPU", "needs", "has", "layers"), *map(_share, memory.shares)], console)
    _show_verdict(verdict(memory), memory.verdict, memory.advice, console)
    if model.bytes_per_slot:
        console.print(Text(f"  each slot: {human(model.bytes_per_slot)} of caches"))
    if most := model.largest:
        slots = _slots(given(model.one.settings.engine.slots))
        text = f"{most.context_per_slot} tokens with {slots}, or {_slots(most.slots)} with {memory.context_per_slot}"
        console.print(Text(f"  at most: {text}"))
    for line in memory.unknown:
        console.print(Text(f"  not counted: {line}"))
    for line in memory.assumptions:
        console.print(Text(f"  assumed: {line}", style="dim"))


def _show_choices(model: PlannedModel, console: Console) -> None:
    """Print the values of settings that are auto, each with its reason."""
    rows = [(model.one.place_of(f"engine.{one.setting}"), str(one.value), one.reason) for one in model.choices]
    for line in columns([("auto", "value", "reason"), *rows], numbers=(1,)) if rows else ():
        console.print(Text(f"  {line}"))


def _share(share: Share) -> tuple[str, ...]:
    layers = f"{share.layers}, too full" if share.full else str(share.layers)
    return share.gpu.name, human(share.device), human(share.gpu.total_bytes), layers


def _show_together(together: Together, console: Console) -> None:
    console.print(Text("memory of all models", style="bold"))
    rows = [("", "GPU", "main memory", "loaded")]
    for name, need in together.needs.items():
        rows.append((name, human(need.device), human(need.host), "always" if name in together.always else "on demand"))
    fixed, machine = together.always_loaded, together.machine
    rows.append(("always loaded", human(fixed.device), human(fixed.host), ""))
    rows.append(("available", _capacity(machine.device_bytes), _capacity(machine.host_bytes), ""))
    _show_table(rows, console)
    _show_verdict(f"{together.verdict}: {_sets(together)}", together.verdict, together.advice, console)


def _sets(together: Together) -> str:
    """Return which models can be loaded at the same time."""
    if not together.needs:
        return "of no model it is known what it needs"
    if not together.sets:
        return "those that are always loaded need more than there is"
    shown = [" + ".join(names) or "none" for names in together.sets[:_MAX_SETS_SHOWN]]
    more = f", and {len(together.sets) - _MAX_SETS_SHOWN} more sets" if len(together.sets) > _MAX_SETS_SHOWN else ""
    return f"at the same time {', or '.join(shown)}{more}"


def _show_table(rows: Sequence[Sequence[str]], console: Console) -> None:
    for line in columns(rows, numbers=(1, 2)):
        console.print(Text(f"  {line}", style="bold" if line.startswith(("total", "always loaded")) else ""))


def _show_verdict(text: str, verdict: str, advice: Sequence[str], console: Console) -> None:
    console.print(Text(f"  {text}", style="red" if verdict == "does not fit" else "green"))
    for line in advice:
        console.print(Text(f"  advice: {line}"))


def _counted(gpus: tuple[Gpu, ...]) -> list[str]:
    """Return each kind of GPU with its number and memory."""
    return [
        f"{count} x {gpu.name} ({human(gpu.total_bytes)})" if count > 1 else f"{gpu.name} ({human(gpu.total_bytes)})"
        for gpu, count in Counter(gpus).items()
    ]


def verdict(memory: MemoryPlan) -> str:
    """Return whether it fits, and where the layers are, in one sentence."""
    gpu = "GPUs" if isinstance(memory, SeveralGpusPlan) else "GPU"
    on_gpu = f"{memory.layers_on_device} of {memory.layers} layers on the {gpu}"
    layers = on_gpu if memory.layers_on_device else "on the CPU"
    return f"{memory.verdict}: {layers}, {memory.context_per_slot} tokens of context for each slot"


def _slots(count: int) -> str:
    return f"{count} slot{'s' if count > 1 else ''}"


def _size(size: int) -> str:
    return human(size) if size else ""


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
