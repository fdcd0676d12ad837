"""The gateway's sections of schema/reference.md: its routes, error codes and metrics."""

from __future__ import annotations

from llama_gguf.api_errors import ERROR_CODES
from llama_gguf.cli.generate.gateway_tables import CANCEL_MATRIX, COUNTING, ROUTE_NOTES, Phase
from llama_gguf.cli.generate.markdown import table, text
from llama_gguf.gateway.api.routes import ROUTES
from llama_gguf.gateway.request.field import Field, FieldClass
from llama_gguf.gateway.request.fields import TABLES
from llama_gguf.gateway.request.unsupported import UNSUPPORTED
from llama_gguf.gateway.telemetry.metric_definitions import ENGINE_SERIES, PROCESS_SERIES, SERIES


def routes_section() -> str:
    """Return the table of the gateway's routes."""
    rows = [(one.method, f"`{one.template}`", one.group, one.scope or "none", text(one.summary)) for one in ROUTES]
    return (
        "## Routes\n\nEvery route of the gateway. Groups other than `admin` and `builtin` are enabled by "
        f"`gateway.routes`.\n\n{table(('method', 'path', 'group', 'required scope', ''), rows)}\n\n"
        + "\n\n".join(ROUTE_NOTES)
    )


def counting_section() -> str:
    """Return the table of where token counts come from."""
    rows = [tuple(map(text, row)) for row in COUNTING]
    return (
        "## Tokens\n\nLimits, usage, metrics and the access log all use the same count, however a response ends: the "
        "engine's own. If the response does not report it, an estimate is charged for some tenths of a second, until "
        "the engine has released the request and can be queried. A `llama-server` of your own (`engine.binary`), or "
        "one that has exited meanwhile, cannot be queried: then the estimate remains.\n\n"
        f"{table(('response', 'token counts', 'if the engine cannot be queried'), rows)}"
    )


def fields_section() -> str:
    """Return the tables of what a request's body may hold."""
    rows = [(f"`{name}`", _listed(groups), _bounds(field)) for name, field, groups in _fields("public", "admin")]
    internal = ", ".join(f"`{name}`" for name, _, _ in _fields("internal"))
    return (
        "## Fields of requests\n\nThe fields of a JSON body, by group of routes. null counts as left out. A field that "
        "is not in the table is left out of what the engine gets, and the response's `Warning` header says so; a wrong "
        "type, a value out of bounds, a name that occurs twice, or names of one thing that contradict each other are "
        "400. So are these, without which the response would be another, unless they are empty: "
        f"{_unsupported()}. What has no bounds here is checked by its meaning; `limits.request` bounds numbers of "
        "prompts, tools, images, stop sequences and schemas. These are for the engine's own use, and always refused "
        f"where the engine would read them: {internal}.\n\n{table(('field', 'groups', 'accepts'), rows)}"
    )


def _fields(*access: FieldClass) -> list[tuple[str, Field, list[str]]]:
    """Return each field of these classes with the groups that have it alike."""
    found: dict[tuple[str, str], tuple[Field, list[str]]] = {}
    for group, fields in TABLES.items():
        for name, field in fields.items():
            if field.access in access:
                found.setdefault((name, _bounds(field)), (field, []))[1].append(group)
    return [(name, field, groups) for (name, _), (field, groups) in sorted(found.items(), key=lambda item: item[0])]


def _unsupported() -> str:
    """Return the fields that are refused because nothing here does what they ask for, with the groups of each."""
    groups: dict[str, list[str]] = {}
    for group, fields in UNSUPPORTED.items():
        for name in fields:
            groups.setdefault(name, []).append(group)
    return ", ".join(f"`{name}` ({', '.join(found)})" for name, found in sorted(groups.items()))


def _listed(groups: list[str]) -> str:
    return "all" if len(groups) == len(TABLES) else ", ".join(groups)


def _bounds(field: Field) -> str:
    parts = [field.words]
    if field.choices:
        parts = [" or ".join(f"`{choice}`" for choice in field.choices)]
    elif field.low is not None and field.high is not None:
        parts.append(f"{field.low:.10g} to {field.high:.10g}")
    elif field.max_length is not None:
        parts.append(f"length at most {field.max_length}")
    if field.access == "admin":
        parts.append("scope `admin`")
    return ", ".join(parts)


def cancel_section() -> str:
    """Return the table of when a disconnecting client frees its slot."""
    phases: dict[Phase, str] = {"queued": "in the queue", "prefill": "prompt processing", "generating": "generating"}
    rows = [
        (f"`{route}`", *(", ".join(kinds.get(phase, ())) or "-" for phase in phases))
        for route, kinds in CANCEL_MATRIX.items()
    ]
    return (
        "## Clients that disconnect\n\nA client that closes its connection leaves the queue at once and frees the "
        "engine's slot within a second, whatever else the engine is processing. Each entry is a test on the real "
        f"engine, by its `/slots`.\n\n{table(('route', *phases.values()), rows)}"
    )


def errors_section() -> str:
    """Return the table of error codes."""
    rows = [(f"`{e.code}`", str(e.status), text(e.meaning), text(e.remedy)) for e in ERROR_CODES]
    return (
        "## Errors\n\nThe `code` in every error response of the gateway. Errors of the engine keep their status.\n\n"
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
        "## Metrics\n\nExposed at the gateway's `/metrics`. All of these also have the label `worker_type`; `key` "
        f"requires `metrics.key_label`.\n\n{table(('series', 'type', 'labels', ''), rows)}\n\n"
        f"Of the gateway's process: {process}.\n\nOf the engine, with `metrics.engine_series`: {engine}."
    )
