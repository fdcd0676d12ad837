"""`llama-gguf diagnostics`: a report for troubleshooting, secrets masked."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from llama_gguf.cli import diagnostics_sections
from llama_gguf.cli.appliance import Facts, find_run_dir, inspect
from llama_gguf.cli.commands.status import as_dict
from llama_gguf.cli.config_options import config_options
from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES
from llama_gguf.settings.redaction import mask_known, mask_text, mask_value
from llama_gguf.settings.shown_environment import secret_values, shown_environment


@click.command()
@config_options
@click.option("--run-dir", type=click.Path(path_type=Path), help="Run directory; default: that of `up`.")
@click.option("--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Lines of each log.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file, mode 0600.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def diagnostics(  # noqa: PLR0917 - click passes its options by name
    config: Path | None, sets: tuple[str, ...], run_dir: Path | None, lines: int, output: Path | None, as_json: bool
) -> None:
    """Collect a report about this machine and the appliance on it, secrets masked."""
    report = collect(inspect(find_run_dir(run_dir, config, sets)), lines)
    text = json.dumps(report, indent=1) + "\n" if as_json else "\n".join(as_text(report)) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # and not /dev/stdout
        os.fchmod(descriptor, 0o600)  # it can have been there, readable by others
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    click.echo(f"written to {output}; review it before you share it", err=True)


def collect(facts: Facts, lines: int) -> dict[str, Any]:
    """Collect every section, and mask secrets in all of them."""
    snapshot = facts.snapshot
    tails = diagnostics_sections.logs(facts, lines)
    directories = [facts.run.root, Path("/dev/shm")]  # noqa: S108 - inspected, not written
    if snapshot is not None:
        directories += [snapshot.locations.data_dir, snapshot.locations.models_dir, snapshot.locations.logs_dir]
    report = {
        "system": diagnostics_sections.system(),
        "gpu": diagnostics_sections.gpus(os.environ),
        "disks": diagnostics_sections.disks(directories),
        "engine": diagnostics_sections.engine(snapshot, os.environ),
        "model": diagnostics_sections.model(snapshot, os.environ),
        "status": as_dict(facts),
        "processes": diagnostics_sections.processes(facts),
        "settings": mask_value("", snapshot.settings.model_dump(mode="json")) if snapshot else None,
        "environment": shown_environment(os.environ),
        "errors": diagnostics_sections.errors(tails),
        "logs": tails,
    }
    read = {legacy.name for legacy in LEGACY_VARIABLES}
    secrets = secret_values(os.environ, snapshot.settings if snapshot else None, read)
    masked: dict[str, Any] = _masked(report, secrets)
    return masked


def _masked(value: Any, secrets: frozenset[str]) -> Any:  # noqa: ANN401 - any JSON value
    """Return `value` with every text in it masked: the known secrets, and what patterns find."""
    if isinstance(value, dict):
        return {name: _masked(child, secrets) for name, child in value.items()}
    if isinstance(value, list):
        return [_masked(child, secrets) for child in value]
    return mask_text(mask_known(value, secrets)) if isinstance(value, str) else value


def as_text(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report as lines of text, with a heading per section."""
    for name, section in report.items():
        yield f"== {name}"
        yield from _lines(section, "")
        yield ""


def _lines(value: Any, indent: str) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        for name, child in value.items():
            if isinstance(child, dict | list) and child:
                yield f"{indent}{name}:"
                yield from _lines(child, indent + "  ")
            else:
                yield f"{indent}{name}: {'' if child in (None, [], {}) else child}"
    elif isinstance(value, list):
        for child in value:
            yield indent + (json.dumps(child) if isinstance(child, dict) else str(child))
    else:
        yield f"{indent}{'' if value is None else value}"
