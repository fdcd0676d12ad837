"""How the `models` commands show files: a table, or plain dicts for `--json`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_gguf.cli.plan.view import human
from llama_gguf.cli.shelf import Shelf
from llama_gguf.logs import clean
from llama_gguf.models.shelf.scan import Stored
from llama_gguf.models.shelf.use import files_of
from llama_gguf.states import Residency
from llama_gguf.timestamps import utc_text

_WIDE = 400
"""Columns if the output is not a terminal: a pipe has no width."""
_STYLES = {
    "complete": "green",
    "partial": "yellow",
    "missing": "red",
    Residency.LOADED: "green",
    Residency.FAILED: "red",
}
_TEXTS = {"MODEL", "STATE", "NOTES"}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table, one per line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("FILE", "VERSION", "SIZE", "STATE", "LAST USE", "USED BY"):
        table.add_column(heading, no_wrap=heading != "USED BY", justify="right" if heading == "SIZE" else "left")
    for one in rows:
        size = human(one["bytes"]) if one["bytes"] is not None else ""
        state = Text(one["state"], style=_STYLES[one["state"]])
        table.add_row(
            Text(clean(one["file"])),
            one["version"][:12],
            size,
            state,
            one["last_used"] or "",
            ", ".join(one["used_by"]),
        )
    _print(table)


def print_states(models: list[dict[str, Any]]) -> None:
    """Print which models are in memory; what is not known is left blank."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("MODEL", "STATE", "REQUESTS", "WAITING", "GPU", "RAM", "NOTES"):
        table.add_column(heading, no_wrap=heading != "NOTES", justify="left" if heading in _TEXTS else "right")
    for one in models:
        notes = ["pinned"] * bool(one.get("pinned")) + ["on demand"] * bool(one.get("on_demand"))
        if problem := one.get("problem"):
            notes.append(clean(str(problem)))
        table.add_row(
            Text(clean(str(one["name"]))),
            Text(clean(str(one["state"])), style=_STYLES.get(one["state"], "")),
            _number(one.get("running", one.get("active"))),
            _number(one.get("waiting")),
            human(one["device_bytes"]) if one.get("device_bytes") else "",
            human(one["host_bytes"]) if one.get("host_bytes") else "",
            Text(", ".join(notes)),
        )
    _print(table)


def _number(value: object) -> str:
    return str(value) if isinstance(value, int) else ""


def _print(table: Table) -> None:
    options: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
    console = Console(**options)
    (console if console.is_terminal else Console(**options, width=_WIDE)).print(table)


def label(stored: Stored) -> str:
    """Return the name of a file with its version, on one line."""
    version = f"@{stored.version[:12]}" if stored.version else ""
    return f"{clean(stored.label)}{version}{' (partial)' if stored.state == 'partial' else ''}"


def row(stored: Stored, shelf: Shelf) -> dict[str, Any]:
    """Return what is known about a file, as JSON values; the structure is stable."""
    used = stored.last_used
    return {
        "file": stored.label,
        "path": str(stored.path),
        "version": stored.version,
        "bytes": stored.size,
        "state": stored.state,
        "current": stored.current,
        "last_used": utc_text(dt.datetime.fromtimestamp(used, dt.UTC)) if used else None,
        "used_by": list(shelf.used_by(stored)),
    }


def missing_rows(shelf: Shelf) -> Iterator[dict[str, Any]]:
    """Yield a row for each file of the configuration that is not on disk."""
    for one in shelf.models:
        for wanted in shelf.wanted(one):
            if not files_of(wanted):
                yield {
                    "file": wanted.description,
                    "path": None,
                    "version": "",
                    "bytes": None,
                    "state": "missing",
                    "current": False,
                    "last_used": None,
                    "used_by": [one.place],
                }
