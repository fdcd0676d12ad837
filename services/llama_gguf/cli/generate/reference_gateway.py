"""The gateway's sections of schema/reference.md: its routes, error codes and metrics."""

from __future__ import annotations

from llama_gguf.api_errors import ERROR_CODES
from llama_gguf.cli.commands.gen import table, text
from llama_gguf.cli.generate.gateway_tables import CANCEL_MATRIX, COUNTING, ROUTE_NOTES, Phase, route_rows
from llama_gguf.gateway.telemetry.metric_definitions import ENGINE_SERIES, PROCESS_SERIES, SERIES


def routes_section() -> str:
    """Return the table of the gateway's routes."""
    rows = [(row.method, f"`{row.path}`", row.group, row.scope, text(row.summary)) for row in route_rows()]
    return (
        "## Routes\n\nWhat the gateway can open. Groups other than `admin` and `builtin` are open where "
        f"`gateway.routes` names them.\n\n{table(('method', 'path', 'group', 'scope of the key', ''), rows)}\n\n"
        + "\n\n".join(ROUTE_NOTES)
    )


def counting_section() -> str:
    """Return the table of how tokens come to be known."""
    rows = [(text(row.answer), text(row.known), text(row.otherwise)) for row in COUNTING]
    return (
        "## Tokens\n\nWhat limits charge is what usage, metrics and the access log report, whichever way an answer "
        "ends, and it is the engine's own count. Where an answer does not tell it, the charge stands by estimate for "
        "some tenths of a second, until the engine has let go of the request and been asked. A `llama-server` of your "
        "own (`engine.binary`), or one that has died meanwhile, cannot be asked: then the estimate stays.\n\n"
        f"{table(('answer', 'counts', 'of an engine that cannot be asked'), rows)}"
    )


def cancel_section() -> str:
    """Return the table of where a client that goes away frees its slot."""
    phases: dict[Phase, str] = {"queued": "in the queue", "prefill": "prompt being read", "generating": "generating"}
    rows = [
        (f"`{route}`", *(", ".join(kinds.get(phase, ())) or "-" for phase in phases))
        for route, kinds in CANCEL_MATRIX.items()
    ]
    return (
        "## Clients that go away\n\nA client that closes its connection leaves the queue at once and frees the "
        "engine's slot within a second, whatever the engine does for others meanwhile. Each entry is a test on the "
        f"real engine, whose `/slots` tells.\n\n{table(('route', *phases.values()), rows)}"
    )


def errors_section() -> str:
    """Return the table of error codes."""
    rows = [(f"`{e.code}`", str(e.status), text(e.meaning), text(e.remedy)) for e in ERROR_CODES]
    return (
        "## Errors\n\nThe `code` in every error answer of the gateway. Errors of the engine keep their status.\n\n"
        f"{table(('code', 'status', 'meaning', 'what to do'), rows)}"
    )


def metrics_section() -> str:
    """Return the table of metrics."""
    rows = []
    for series in SERIES:
        labels = [*series.labels, *(["key"] if series.per_key else [])]
        rows.append((f"`{series.name}`", series.kind, ", ".join(f"`{label}`" for label in labels), text(series.help)))
    engine, process = (", ".join(f"`{name}`" for name in names) for names in (ENGINE_SERIES, PROCESS_SERIES))
    return (
        "## Metrics\n\nOn the gateway's `/metrics`. All of these carry the label `worker_type` too; `key` only with "
        f"`metrics.key_label`.\n\n{table(('series', 'kind', 'labels', ''), rows)}\n\n"
        f"Of the gateway's process: {process}.\n\nOf the engine, with `metrics.engine_series`: {engine}."
    )
