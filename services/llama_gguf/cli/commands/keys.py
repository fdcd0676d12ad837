"""`llama-gguf keys`: create, list, update and revoke API keys. A running appliance applies changes within a second."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import cast

import click

from llama_gguf.cli import keys_view as view
from llama_gguf.cli.keys_options import SPAN, Given, KeyPaths, field_options, key_id_argument, key_paths_options
from llama_gguf.keys import store
from llama_gguf.keys.bootstrap import KEY_ID as BOOTSTRAP_ID
from llama_gguf.keys.keyring import Keyring
from llama_gguf.keys.operations import Change, KeyFields, find_key
from llama_gguf.keys.record import KeyFile
from llama_gguf.keys.secret import is_short
from llama_gguf.settings.redaction import shown_variable
from llama_gguf.timestamps import utc_text

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print only the key.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Create, list, update and revoke API keys.

    A running appliance applies every change within a second. The keys file holds SHA-256 digests: a key is shown only
    once, when it is created.
    """


@keys.command()
@key_id_argument
@field_options
@key_paths_options
@json_option
@quiet_option
def generate(key_id: str, given: KeyFields, paths: KeyPaths, *, as_json: bool, quiet: bool) -> None:
    """Create a key and print it; it cannot be shown again."""
    change = paths.admin().generate(key_id, **given)
    _hand_over(change, f"New key {key_id} in {paths.keys_file}", as_json=as_json, quiet=quiet)


@keys.command("list")
@key_paths_options
@json_option
@quiet_option
def list_(paths: KeyPaths, *, as_json: bool, quiet: bool) -> None:
    """List the keys: ids, states and limits, never the secrets. With --quiet, only the ids."""
    records, now = _read(paths).records, _now()
    if as_json:
        _print_json({"keys": [view.as_json(record, now) for record in records]})
    elif quiet:
        click.echo("".join(f"{record.id}\n" for record in records), nl=False)
    elif records:
        view.console().print(view.table(records, now))
    else:
        click.echo(f"No keys in {paths.keys_file}. `llama-gguf keys generate NAME` creates one.")


@keys.command("show")
@key_id_argument
@key_paths_options
@json_option
def show_(key_id: str, paths: KeyPaths, *, as_json: bool) -> None:
    """Show one key: its scopes, limits and dates."""
    record = find_key(_read(paths), key_id)
    if as_json:
        _print_json(view.as_json(record, _now()))
    else:
        click.echo(view.details(record, _now()))


@keys.command()
@key_id_argument
@field_options
@key_paths_options
@json_option
def update(key_id: str, given: KeyFields, paths: KeyPaths, *, as_json: bool) -> None:
    """Change a key's scopes, limits and other fields, not its secret. `none`, `all` and `never` remove a limit."""
    if not given:
        raise click.UsageError("give at least one option, for example --rate-limit 60")
    change = paths.admin().update(key_id, **given)
    if as_json:
        _print_json(view.as_json(change.record, _now()))
    else:
        click.echo(view.details(change.record, _now()))


@keys.command()
@key_id_argument
@key_paths_options
@json_option
def remove(key_id: str, paths: KeyPaths, *, as_json: bool) -> None:
    """Revoke a key: its secret, and every earlier one, become invalid within a second."""
    change = paths.admin().remove(key_id)
    if as_json:
        _print_json({"id": key_id, "removed": True})
    else:
        click.echo(f"Removed {key_id} ({change.record.prefix}…).")
    if key_id == BOOTSTRAP_ID and paths.bootstrap and (paths.bootstrap.env or paths.bootstrap.file):
        source = shown_variable(paths.bootstrap.env) if paths.bootstrap.env else "a file"
        click.echo(
            f"warning: auth.bootstrap still refers to {source}: its key is added again at the next start", err=True
        )


@keys.command()
@key_id_argument
@click.option(
    "--grace",
    type=SPAN,
    metavar="span",
    default="0",
    show_default=True,
    help="How long the old secret stays valid, such as 24h.",
)
@click.option(
    "--request-id",
    default="",
    metavar="UUID",
    help="Idempotency: repeating a rotation with the same id returns the same secret.",
)
@key_paths_options
@json_option
@quiet_option
def rotate(key_id: str, grace: Given, request_id: str, paths: KeyPaths, *, as_json: bool, quiet: bool) -> None:
    """Give a key a new secret and print it; it cannot be shown again. Limits and expiry do not change.

    Without --grace the old secret, and those of earlier rotations, become invalid at once.
    """
    change = paths.admin().rotate(key_id, grace=cast("dt.timedelta", grace.value), request_id=request_id)
    end = view.grace_end(change.record, _now())
    until = f"the earlier one is valid until {utc_text(end)}" if end else "the earlier one is no longer valid"
    _hand_over(change, f"New secret for {key_id}; {until}", as_json=as_json, quiet=quiet)


@keys.command("import")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@key_paths_options
@json_option
def import_(file: Path | None, paths: KeyPaths, *, as_json: bool) -> None:
    """Import the keys of FILE, a legacy plaintext file or another keys file.

    Without FILE, a keys file that is itself in the legacy format is converted. Idempotent.
    """
    source = file or paths.keys_file
    loaded = store.load(source).keys
    result = paths.admin().import_file(source)
    if as_json:
        _print_json({"imported": list(result.added), "skipped": list(result.skipped), "plaintext": loaded.plaintext})
    else:
        skipped = f", {len(result.skipped)} already present" if result.skipped else ""
        count = f"{len(result.added)} key{'' if len(result.added) == 1 else 's'}"
        click.echo(f"Imported {count} into {paths.keys_file}{skipped}.")
    if loaded.plaintext:
        _warn_of_plaintext(source, loaded, replaced=_same(source, paths.keys_file))


@keys.command()
@key_paths_options
@json_option
def verify(paths: KeyPaths, *, as_json: bool) -> None:
    """Show whose key this is and whether it is valid. Reads the key from stdin, never from the command line.

    Exits with 1 if the key is not valid.
    """
    text = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline(4096)
    verdict = Keyring(_read(paths).records).explain(text.strip(), _now().timestamp())
    record = verdict.record
    until = dt.datetime.fromtimestamp(verdict.valid_until, dt.UTC) if verdict.valid_until != float("inf") else None
    if as_json:
        _print_json(
            {
                "valid": verdict.state == "valid",
                "state": verdict.state,
                "id": record.id if record else None,
                "previous": verdict.previous,
                "valid_until": utc_text(until) if until else None,
            }
        )
    elif record is None:
        click.echo("unknown: the key is not in the keys file")
    else:
        which = "an earlier secret of" if verdict.previous else "the current secret of"
        span = f"{'until' if verdict.state == 'valid' else 'since'} {utc_text(until)}" if until else "without expiry"
        click.echo(f"{verdict.state} {span}: {which} {record.id}")
    if verdict.state != "valid":
        raise click.exceptions.Exit(1)


def _hand_over(change: Change, heading: str, *, as_json: bool, quiet: bool) -> None:
    """Print a new secret, the only time that it is shown."""
    if quiet:
        click.echo(change.secret)
    elif as_json:
        _print_json({**view.as_json(change.record, _now()), "key": change.secret})
    else:
        view.secret(change.secret, heading)


def _read(paths: KeyPaths) -> KeyFile:
    """Read the keys file and report its warnings on stderr. A missing one has no keys."""
    loaded = store.load_if_exists(paths.keys_file)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning.message}\nhint: {warning.hint}", err=True)
    return loaded.keys


def _warn_of_plaintext(source: Path, old: KeyFile, *, replaced: bool) -> None:
    if replaced:
        click.echo(f"warning: {source} contained plaintext keys; copies and backups of it still do", err=True)
    else:
        click.echo(f"warning: {source} contains plaintext keys; remove it once the import is verified", err=True)
    click.echo("hint: anyone who has read it has the keys; replace them with `llama-gguf keys rotate`", err=True)
    if short := [record.id for record in old.records if is_short(record.prefix)]:
        click.echo(f"warning: short keys can be guessed from their digest: rotate {', '.join(short)} first", err=True)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
