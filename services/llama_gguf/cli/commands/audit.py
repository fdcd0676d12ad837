"""`llama-gguf audit`: verify and show the log of key changes and admin calls."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from llama_gguf.audit import AuditEntry, AuditHead, Detail, entries
from llama_gguf.audit import verify as verify_log
from llama_gguf.cli.config_options import config_options
from llama_gguf.cli.keys_options import find
from llama_gguf.errors import KeysError
from llama_gguf.keys.store import load_if_exists
from llama_gguf.logs import clean

file_option = click.option("--file", type=click.Path(path_type=Path), help="Audit log; default: the configured one.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """Verify and show the log of key changes and admin calls."""


@audit.command()
@click.option(
    "--head", "head_text", metavar="SEQ:HASH", help="A head printed earlier: the log must still contain that entry."
)
@file_option
@config_options
@json_option
def verify(head_text: str | None, file: Path | None, config: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Verify that the log has not been changed.

    Detects changed, inserted, removed and moved lines, and a missing beginning or end; also where the head file was
    truncated with the log, as the keys file names the entry of its last change (not read with --file). Save the head
    that it prints on another machine: with --head, a change to earlier entries is detected even if the whole log was
    rewritten.
    Exits with 78 if the log was changed.
    """
    path = _path(file, config, sets)
    verdict = verify_log(path, expected=_head(head_text), known=_known(file, config, sets))
    if as_json:
        line = verdict.bad_line or None
        result = {"ok": verdict.ok, "entries": verdict.entries, "head": str(verdict.head)}
        click.echo(json.dumps({**result, "bad_line": line, "problem": verdict.problem or None}, indent=2))
    elif verdict.ok:
        click.echo(f"{path}: {verdict.entries} entries, all intact\nhead {verdict.head}")
    if not verdict.ok:
        location = f"{path}:{verdict.bad_line}: this line" if verdict.bad_line else f"{path}:"
        raise KeysError(
            f"{location} {verdict.problem}",
            code="audit-tampered",
            hint=f"the {verdict.entries} entries before it are intact; keep the file as evidence",
        )


@audit.command()
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="Newest entries to show."
)
@file_option
@config_options
@json_option
def show(limit: int, file: Path | None, config: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Show the newest entries, the latest last. Does not verify them; see `audit verify`."""
    newest = deque(entries(_path(file, config, sets)), maxlen=limit)
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in newest], indent=2))
        return
    for entry in newest:
        click.echo(_line(entry))


def _path(file: Path | None, config: Path | None, sets: tuple[str, ...]) -> Path:
    return file if file is not None else find(config, sets, None).audit_file


def _known(file: Path | None, config: Path | None, sets: tuple[str, ...]) -> AuditHead | None:
    """Return the entry that the keys file names, None where the log is not the configured one."""
    if file is not None:
        return None
    recorded = load_if_exists(find(config, sets, None).keys_file).keys.audit_head
    return AuditHead.read(recorded) if recorded else None


def _head(text: str | None) -> AuditHead | None:
    if text is None:
        return None
    try:
        return AuditHead.read(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--head") from None


def _line(entry: AuditEntry) -> str:
    return clean(
        f"{entry.seq:>5}  {entry.ts}  {entry.actor}  {entry.action}  {entry.target}  {_details(entry.details)}"
    )


def _details(details: Mapping[str, Detail]) -> str:
    shown = {name: ",".join(value) if isinstance(value, list) else value for name, value in details.items()}
    return " ".join(f"{name}={value}" for name, value in shown.items())
