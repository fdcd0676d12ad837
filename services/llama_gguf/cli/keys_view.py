"""How the `keys` commands show records: rich text, or plain dicts for `--json`. Never a key, never a digest."""

from __future__ import annotations

import datetime as dt
import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_gguf.keys.record import KeyRecord
from llama_gguf.logs import clean
from llama_gguf.timestamps import utc_text

WIDE = 240
"""Columns if the output is not a terminal: a pipe has no width."""


def console() -> Console:
    """Return a console on stdout that prints user text unchanged."""
    created = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return (
        created
        if created.is_terminal
        else Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=WIDE)
    )


def as_json(record: KeyRecord, now: dt.datetime) -> dict[str, object]:
    """Return all fields of a record except the digests, including defaults."""
    return {
        "id": record.id,
        "prefix": record.prefix,
        "state": state(record, now),
        "scopes": sorted(record.scopes),
        "models": None if record.models is None else list(record.models),
        "requests_per_minute": record.requests_per_minute,
        "tokens_per_minute": record.tokens_per_minute,
        "concurrency": record.concurrency,
        "monthly_tokens": record.monthly_tokens,
        "max_output_tokens": record.max_output_tokens,
        "max_reasoning_tokens": record.max_reasoning_tokens,
        "strip": list(record.strip),
        "defaults": record.defaults or {},
        "priority": record.priority,
        "created": utc_text(record.created),
        "rotated": _time(record.rotated),
        "expires": _time(record.expires),
        "previous_valid_until": _time(grace_end(record, now)),
        "note": record.note,
    }


def state(record: KeyRecord, now: dt.datetime) -> str:
    """Return `expired`, `rotating` (an earlier secret is still valid) or `active`."""
    if record.expires and record.expires <= now:
        return "expired"
    return "rotating" if grace_end(record, now) else "active"


def grace_end(record: KeyRecord, now: dt.datetime) -> dt.datetime | None:
    """Return until when any earlier secret is valid, or None."""
    return max((old.valid_until for old in record.previous if old.valid_until > now), default=None)


def _time(moment: dt.datetime | None) -> str | None:
    return utc_text(moment) if moment else None


def table(records: tuple[KeyRecord, ...], now: dt.datetime) -> Table:
    """Return the records as a table, one per row."""
    view = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "PREFIX", "STATE", "SCOPES", "LIMITS", "PRIORITY", "EXPIRES", "NOTE"):
        view.add_column(heading, no_wrap=heading in ("ID", "PREFIX", "STATE"))
    for record in records:
        now_state = state(record, now)
        view.add_row(
            record.id,
            record.prefix + "…",
            Text(now_state, style={"expired": "red", "rotating": "yellow"}.get(now_state, "green")),
            ",".join(sorted(record.scopes)),
            limits(record),
            record.priority,
            _time(record.expires) or "never",
            record.note,
        )
    return view


def limits(record: KeyRecord) -> str:
    """Return a record's own limits in one line; `default` where it has none."""
    own = (
        (record.requests_per_minute, "rpm"),
        (record.tokens_per_minute, "tpm"),
        (record.concurrency, "concurrent"),
        (record.monthly_tokens, "per month"),
        (record.max_output_tokens, "output tokens"),
        (record.max_reasoning_tokens, "reasoning tokens"),
    )
    return ", ".join(f"{number} {unit}" for number, unit in own if number is not None) or "default"


def details(record: KeyRecord, now: dt.datetime) -> str:
    """Return one record as lines of `name  value`."""
    rows = {
        "id": record.id,
        "prefix": record.prefix + "…",
        "state": state(record, now),
        "scopes": ", ".join(sorted(record.scopes)),
        "models": ", ".join(record.models) if record.models else "all",
        "limits": limits(record),
        "priority": record.priority,
        "created": utc_text(record.created),
        "rotated": _time(record.rotated) or "never",
        "expires": _time(record.expires) or "never",
    }
    if end := grace_end(record, now):
        rows["earlier key"] = f"valid until {utc_text(end)}"
    if record.defaults:
        rows["defaults"] = clean(json.dumps(record.defaults, ensure_ascii=False))
    if record.strip:
        rows["stripped"] = ", ".join(record.strip)
    if record.note:
        rows["note"] = record.note
    return "\n".join(f"{name:<12} {value}" for name, value in rows.items())


def secret(text: str, heading: str) -> None:
    """Print a key that was generated just now, alone on its line, so that it can be copied."""
    click.echo(click.style(heading, bold=True))
    click.echo(f"\n  {click.style(text, fg='green')}\n")
    click.echo("It is shown only once; the keys file holds its SHA-256.")
