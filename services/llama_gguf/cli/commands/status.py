"""`llama-gguf status`: the programs, the readiness of the appliance, and the last error."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from llama_gguf.cli.appliance import Facts, find_run_dir, inspect, public_url
from llama_gguf.cli.config_options import config_options
from llama_gguf.cli.process_memory import ProcessMemory
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.notices import notices_as_data
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
        "warnings": notices_as_data(facts.notices),
        "health": facts.health,
        "engine": facts.engine.as_data() if facts.engine else None,
        "cpu_variant": engine_variant.summary(facts.variant),
        "failure": None
        if facts.failure is None
        else {
            "program": facts.failure.program,
            "summary": facts.failure.summary,
            "cause": facts.failure.cause,
            "fix": facts.failure.fix,
            "at": utc_text(facts.failure.at, "seconds"),
        },
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
    for notice in facts.notices:
        hint = f"; {notice.hint}" if notice.hint else ""
        console.print(f"warning[{notice.code}]: {notice.message}{hint}", markup=False, highlight=False)
    if line := _cpu_variant(facts):
        console.print(line, markup=False, highlight=False)
    if memory := facts.memory.get("engine"):
        console.print(f"memory of the engine: {_memory_as_text(memory)}", **_PLAIN)
    if facts.failure:
        text = failures.render(facts.failure, facts.run.log(facts.failure.program))
        console.print(f"last failure, {utc_text(facts.failure.at, 'seconds')}:\n{text}", end="", **_PLAIN)


def _readiness(facts: Facts) -> str:
    if not facts.running:
        return f"nothing runs in {facts.run.root}"
    address = public_url(facts.snapshot) if facts.snapshot else ""
    if facts.health is None:
        return f"{address}, the health server does not answer"
    detail = facts.engine.detail if facts.engine and facts.state == ServiceState.STARTING else ""
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
