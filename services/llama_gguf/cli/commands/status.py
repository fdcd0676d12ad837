"""`llama-gguf status`: the programs, the readiness of the appliance, and the last error."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_gguf.cli.appliance import Facts, ServedFacts, find_run_dir, inspect, public_url
from llama_gguf.cli.config_options import config_options
from llama_gguf.cli.process_memory import ProcessMemory
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.notices import Notice, notices_as_data
from llama_gguf.states import ServiceState
from llama_gguf.timestamps import utc_text

_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
"""Text unchanged: a terminal wraps long lines itself, and readers of a pipe expect whole lines."""


@click.command()
@config_options
@click.option("--run-dir", type=click.Path(path_type=Path), help="Run directory; default: that of `up`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(
    context: click.Context, config: Path | None, sets: tuple[str, ...], run_dir: Path | None, as_json: bool
) -> None:
    """Show the programs, their states and the last error.

    Exits 0 when ready, 75 when running but not ready (yet), 69 when stopped or failed.
    """
    facts = inspect(find_run_dir(run_dir, config, sets))
    if as_json:
        click.echo(json.dumps(as_dict(facts), indent=1))
    else:
        show(facts, Console())
    context.exit(facts.exit_code)


def as_dict(facts: Facts) -> dict[str, Any]:
    """Return the facts as JSON values; the structure is stable."""
    return {
        "state": facts.state,
        "run_dir": str(facts.run.root),
        "url": public_url(facts.snapshot) if facts.snapshot else None,
        "programs": [
            {
                "name": info.name,
                "state": info.state,
                "pid": info.pid or None,
                "uptime_seconds": info.uptime_seconds,
                "restarts": facts.restarts(info.name),
                "last_end": _last_end(facts, info.name) or None,
                "memory": _memory_as_dict(facts.memory.get(info.name)),
            }
            for info in facts.programs
        ],
        "models": [_model_as_dict(facts, one) for one in facts.models],
        "warnings": notices_as_data(facts.notices),
        "health": facts.health,
        "engine": facts.engine.as_data() if facts.engine else None,
        "cpu_variant": engine_variant.summary(facts.variant),
        "failure": _failure_as_dict(facts.failure),
    }


def _failure_as_dict(failure: Failure | None) -> dict[str, str] | None:
    if failure is None:
        return None
    return {
        "program": failure.program,
        "summary": failure.summary,
        "cause": failure.cause,
        "fix": failure.fix,
        "at": utc_text(failure.at, "seconds"),
    }


def _model_as_dict(facts: Facts, model: ServedFacts) -> dict[str, Any]:
    """Return one of several models; restarts and the last end are also in `programs`, if its program is there."""
    return {
        "name": model.name,
        "program": model.program,
        "state": facts.state_of(model),
        "residency": model.residency,
        "required": model.required,
        "on_demand": model.on_demand,
        "restarts": facts.restarts(model.program),
        "last_end": _last_end(facts, model.program) or None,
        "memory": _memory_as_dict(facts.memory.get(model.program)),
        "reduced": dict(model.reduced),
        "warnings": notices_as_data(facts.warnings_of(model)),
        "engine": model.engine.as_data() if model.engine else None,
        "cpu_variant": engine_variant.summary(model.variant),
        "failure": _failure_as_dict(model.failure),
    }


def show(facts: Facts, console: Console) -> None:
    """Print the facts as text."""
    console.print(f"{facts.state}: {_readiness(facts)}", **_PLAIN)
    if facts.programs:
        table = Table("program", "state", "pid", "uptime", "restarts", "last end", box=None, pad_edge=False)
        for info in facts.programs:
            uptime = str(dt.timedelta(seconds=info.uptime_seconds)) if info.uptime_seconds else ""
            restarts = str(facts.restarts(info.name))
            last = _last_end(facts, info.name) or info.problem
            table.add_row(info.name, info.state.lower(), str(info.pid or ""), uptime, restarts, last)
        console.print(table)
    if facts.models:
        _show_models(facts, console)
    for notice in facts.notices:
        console.print(_warning(notice), markup=False, highlight=False)
    if line := _cpu_variant(facts):
        console.print(line, markup=False, highlight=False)
    if memory := facts.memory.get("engine"):
        console.print(f"memory of the engine: {_memory_as_text(memory)}", **_PLAIN)
    if facts.failure:
        _show_failure("last failure", facts.failure, facts, console)


def _show_models(facts: Facts, console: Console) -> None:
    """Print each of several models: its state and memory, its warnings, and why it failed while others go on."""
    table = Table("model", "state", "memory", "notes", box=None, pad_edge=False)
    for one in facts.models:
        memory = facts.memory.get(one.program)
        notes = ["on demand"] * one.on_demand + ["not required"] * (not one.required and not one.on_demand)
        notes += [f"{name} reduced to {value}" for name, value in one.reduced.items()]
        size = _memory_as_text(memory) if memory else ""
        table.add_row(Text(one.name), facts.state_of(one), size, Text(", ".join(notes)))
    console.print(table)
    for one in facts.models:
        for notice in facts.warnings_of(one):
            console.print(f"{one.name}: {_warning(notice)}", markup=False, highlight=False)
    for one in facts.models:
        if one.failure:
            _show_failure(f"{one.name} failed", one.failure, facts, console)


def _warning(notice: Notice) -> str:
    return f"warning[{notice.code}]: {notice.message}{f'; {notice.hint}' if notice.hint else ''}"


def _show_failure(what: str, failure: Failure, facts: Facts, console: Console) -> None:
    text = failures.render(failure, facts.run.log(failure.program))
    console.print(f"{what}, {utc_text(failure.at, 'seconds')}:\n{text}", end="", **_PLAIN)


def _readiness(facts: Facts) -> str:
    if not facts.running:
        return f"nothing runs in {facts.run.root}"
    address = public_url(facts.snapshot) if facts.snapshot else ""
    if facts.health is None:
        return f"{address}, the health server does not answer"
    # Of several models, health names the one that it waits for.
    engine = next((one.engine for one in facts.models if one.name == facts.health["model"]), facts.engine)
    detail = engine.detail if engine and facts.state == ServiceState.STARTING else ""
    parts = [address, facts.health["model"], facts.health["phase"], detail, facts.health["reason"]]
    progress = facts.health.get("progress") or {}
    if progress.get("percent") is not None:
        parts.append(f"{progress['percent']} %")
    parts.append(f"since {facts.health['since']}")
    return ", ".join(part for part in parts if part)


def _cpu_variant(facts: Facts) -> str:
    """Return the line about the engine's CPU variant: which one runs, and which better ones crashed."""
    shown = engine_variant.summary(facts.variant)
    if shown is None:
        return ""
    parts = [f"CPU variant: {shown['name'] or 'none yet'}"]
    if shown["pinned"]:
        parts.append("pinned by engine.cpu_variant")
    if shown["rejected"]:
        parts.append(f"crashed on this machine and not used: {', '.join(shown['rejected'])}")
    return ", ".join(parts)


def _memory_as_dict(memory: ProcessMemory | None) -> dict[str, int] | None:
    if memory is None:
        return None
    return {"anonymous_bytes": memory.anonymous, "mapped_bytes": memory.mapped, "swapped_bytes": memory.swapped}


def _memory_as_text(memory: ProcessMemory) -> str:
    text = f"{memory.anonymous >> 20} MiB anonymous, {memory.mapped >> 20} MiB of mapped files"
    return f"{text}, {memory.swapped >> 20} MiB swapped out" if memory.swapped else text


def _last_end(facts: Facts, program: str) -> str:
    crash = facts.last_crash(program)
    if crash is None:
        return ""
    how = crash.signal or (f"exit status {crash.code}" if crash.code is not None else "unknown")
    return f"{how} at {utc_text(crash.at, 'seconds')}"
