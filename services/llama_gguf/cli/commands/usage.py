"""`llama-gguf usage`: each key's use of each model, as recorded by the gateway."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import cast

import click
from rich.table import Table
from rich.text import Text

from llama_gguf.cli.config_options import config_options, load_or_exit
from llama_gguf.cli.keys_view import console
from llama_gguf.errors import KeysError
from llama_gguf.gateway.telemetry.usage_store import By, Used, read
from llama_gguf.keys.durations import parse_moment, parse_span
from llama_gguf.settings.locations import locate

HEADINGS = {"key": "Key", "model": "Model", "day": "Day (UTC)"}
COLUMNS = ("Requests", "Errors", "Prompt tokens", "of which cached", "Completion tokens", "Total tokens")


class _Since(click.ParamType[dt.date]):
    """A day: a duration before now (`7d`, `12h`), or a date."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dt.date:
        """Parse a duration before now, or a date; both become a UTC day."""
        text = str(value)
        try:
            return (dt.datetime.now(dt.UTC) - parse_span(text)).date()
        except (KeysError, OverflowError):
            pass  # not a duration; perhaps a date
        try:
            return parse_moment(text).date()
        except KeysError:
            raise click.BadParameter(
                f"{text!r} is not a duration or date: write 7d, 12h or 2030-01-31", ctx, param
            ) from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--since",
    type=_Since(),
    default="30d",
    show_default=True,
    metavar="WHEN",
    help="First day (UTC, the whole day): 7d, 12h or 2030-01-31.",
)
@click.option("--by", type=click.Choice(["key", "model", "day"]), default="key", show_default=True, help="Group by.")
@click.option("--file", type=click.Path(path_type=Path), help="Usage file; default: the configured one.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def usage(
    since: dt.date, by: str, file: Path | None, config: Path | None, sets: tuple[str, ...], *, as_json: bool
) -> None:
    """Show tokens and requests by key, model or day.

    The gateway writes the figures once per second, so the newest can be missing. Errors are requests that ended in one;
    those whose client disconnected do not count.
    """
    path = file if file is not None else locate(load_or_exit(config, sets).settings, os.environ).usage_file
    rows = read(path, by=cast("By", by), since=str(since))
    if as_json:
        groups = [{by: row.name, **_numbers(row)} for row in rows]
        click.echo(json.dumps({"since": str(since), "by": by, "file": str(path), "usage": groups}, indent=2))
        return
    if not rows:
        click.echo(f"{path}: no usage since {since}")
        return
    console().print(_table(rows, by))


def _numbers(row: Used) -> dict[str, int]:
    numbers = {name: value for name, value in row._asdict().items() if isinstance(value, int)}
    return {**numbers, "total_tokens": row.prompt_tokens + row.completion_tokens}


def _table(rows: list[Used], by: str) -> Table:
    table = Table(show_footer=len(rows) > 1)
    sums = [sum(column) for column in zip(*(_numbers(row).values() for row in rows), strict=True)]
    table.add_column(HEADINGS[by], footer="Total", no_wrap=True)
    for heading, total in zip(COLUMNS, sums, strict=True):
        table.add_column(heading, footer=f"{total:,}", justify="right")
    for row in rows:
        table.add_row(Text(row.name), *(f"{number:,}" for number in _numbers(row).values()))
    return table
