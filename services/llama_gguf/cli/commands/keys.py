"""`llama-gguf keys`: make, list, change and revoke API keys. A running appliance sees a change within a second."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import cast

import click

from llama_gguf.cli import keys_view as view
from llama_gguf.cli.keys_options import SPAN, Given, Where, field_options, key_id_argument, where_options
from llama_gguf.errors import KeysError
from llama_gguf.keys import store
from llama_gguf.keys.bootstrap import KEY_ID as BOOTSTRAP_ID
from llama_gguf.keys.keyring import Keyring
from llama_gguf.keys.operations import Change, KeyFields
from llama_gguf.keys.record import KeyFile
from llama_gguf.keys.secret import is_short
from llama_gguf.timestamps import utc_text

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print nothing but the key.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Make, list, change and revoke API keys.

    A running appliance sees every change within a second. The keys file holds SHA-256 digests: a key is shown once,
    when it is made.
    """


@keys.command()
@key_id_argument
@field_options
@where_options
@json_option
@quiet_option
def generate(key_id: str, given: KeyFields, where: Where, *, as_json: bool, quiet: bool) -> None:
    """Make a key and print it, this once."""
    change = where.admin().generate(key_id, **given)
    _hand_over(change, f"New key {key_id} in {where.keys_file}", as_json=as_json, quiet=quiet)


@keys.command("list")
@where_options
@json_option
@quiet_option
def list_(where: Where, *, as_json: bool, quiet: bool) -> None:
    """List the keys: ids, states and limits, never the keys themselves. With --quiet, the ids alone."""
    records, now = _read(where).records, _now()
    if as_json:
        _print_json({"keys": [view.as_json(record, now) for record in records]})
    elif quiet:
        click.echo("".join(f"{record.id}\n" for record in records), nl=False)
    elif records:
        view.console().print(view.table(records, now))
    else:
        click.echo(f"No keys in {where.keys_file}. `llama-gguf keys generate NAME` makes one.")


@keys.command("show")
@key_id_argument
@where_options
@json_option
def show_(key_id: str, where: Where, *, as_json: bool) -> None:
    """Show one key: what it may do, and since when."""
    record = _read(where).find(key_id)
    if record is None:
        raise KeysError(
            f"there is no key with the id {key_id}", code="key-unknown", hint="`llama-gguf keys list` shows the ids"
        )
    if as_json:
        _print_json(view.as_json(record, _now()))
    else:
        click.echo(view.details(record, _now()))


@keys.command()
@key_id_argument
@field_options
@where_options
@json_option
def update(key_id: str, given: KeyFields, where: Where, *, as_json: bool) -> None:
    """Change what a key may do; the key itself stays. `none`, `all` and `never` take a limit away."""
    if not given:
        raise click.UsageError("say what to change, for example --rate-limit 60")
    change = where.admin().update(key_id, **given)
    if as_json:
        _print_json(view.as_json(change.record, _now()))
    else:
        click.echo(view.details(change.record, _now()))


@keys.command()
@key_id_argument
@where_options
@json_option
def remove(key_id: str, where: Where, *, as_json: bool) -> None:
    """Revoke a key: it and every earlier secret of it stop working within a second."""
    change = where.admin().remove(key_id)
    if as_json:
        _print_json({"id": key_id, "removed": True})
    else:
        click.echo(f"Removed {key_id} ({change.record.prefix}…).")
    if key_id == BOOTSTRAP_ID and where.bootstrap and (where.bootstrap.env or where.bootstrap.file):
        source = where.bootstrap.env or where.bootstrap.file
        click.echo(f"warning: auth.bootstrap still names {source}: the key in it returns at the next start", err=True)


@keys.command()
@key_id_argument
@click.option(
    "--grace",
    type=SPAN,
    metavar="span",
    default="0",
    show_default=True,
    help="How long the old key stays good, such as 24h.",
)
@click.option(
    "--request-id", default="", metavar="UUID", help="Repeating a rotation with the same id gives the same key again."
)
@where_options
@json_option
@quiet_option
def rotate(key_id: str, grace: Given, request_id: str, where: Where, *, as_json: bool, quiet: bool) -> None:
    """Give a key a new secret and print it, this once; limits and expiry stay.

    Without --grace the old secret, and any from earlier rotations, stop working at once.
    """
    change = where.admin().rotate(key_id, grace=cast("dt.timedelta", grace.value), request_id=request_id)
    end = view.grace_end(change.record, _now())
    until = f"the earlier one works until {utc_text(end)}" if end else "the earlier one is no longer good"
    _hand_over(change, f"New secret for {key_id}; {until}", as_json=as_json, quiet=quiet)


@keys.command("import")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@where_options
@json_option
def import_(file: Path | None, where: Where, *, as_json: bool) -> None:
    """Take over the keys of FILE, a plaintext file of the old system or another keys file.

    Without FILE, a keys file that is itself in the old format is turned into the new one. Doing it twice is harmless.
    """
    source = file or where.keys_file
    loaded = store.load(source).keys
    result = where.admin().import_file(source)
    if as_json:
        _print_json({"imported": list(result.added), "skipped": list(result.skipped), "plaintext": loaded.plaintext})
    else:
        skipped = f", {len(result.skipped)} known already" if result.skipped else ""
        count = f"{len(result.added)} key{'' if len(result.added) == 1 else 's'}"
        click.echo(f"Imported {count} into {where.keys_file}{skipped}.")
    if loaded.plaintext:
        _warn_of_plaintext(source, loaded, replaced=_same(source, where.keys_file))


@keys.command()
@where_options
@json_option
def verify(where: Where, *, as_json: bool) -> None:
    """Say whose key this is and whether it is good now. Reads the key from stdin, never from the command line.

    Exits with 1 if the key is not good.
    """
    text = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline(4096)
    verdict = Keyring(_read(where).records).explain(text.strip(), _now().timestamp())
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
        click.echo("unknown: no key in the keys file is this one")
    else:
        which = "an earlier secret of" if verdict.previous else "the current secret of"
        span = f"{'until' if verdict.state == 'valid' else 'since'} {utc_text(until)}" if until else "with no end"
        click.echo(f"{verdict.state} {span}: {which} {record.id}")
    if verdict.state != "valid":
        raise click.exceptions.Exit(1)


def _hand_over(change: Change, heading: str, *, as_json: bool, quiet: bool) -> None:
    """Print a new secret, the only time that anybody sees it."""
    if quiet:
        click.echo(change.secret)
    elif as_json:
        _print_json({**view.as_json(change.record, _now()), "key": change.secret})
    else:
        view.secret(change.secret, heading)


def _read(where: Where) -> KeyFile:
    """Read the keys file, its warnings to stderr. A missing one has no keys."""
    try:
        loaded = where.store().read()
    except KeysError as error:
        if error.code == "keys-missing":
            return KeyFile()
        raise
    for warning in loaded.warnings:
        click.echo(f"warning: {warning.message}\nhint: {warning.hint}", err=True)
    return loaded.keys


def _warn_of_plaintext(source: Path, old: KeyFile, *, replaced: bool) -> None:
    if replaced:
        click.echo(f"warning: {source} held the keys themselves; copies and backups of it still do", err=True)
    else:
        click.echo(f"warning: {source} holds the keys themselves; remove it when all works", err=True)
    click.echo("hint: whoever read it has the keys; `llama-gguf keys rotate` gives new ones", err=True)
    if short := [record.id for record in old.records if is_short(record.prefix)]:
        click.echo(f"warning: short keys can be guessed from their digest: rotate {', '.join(short)} first", err=True)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
