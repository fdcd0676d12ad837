"""The routes of an OpenAPI description as Markdown: what a route is for, who may call it, and how it answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

HEADINGS = {"builtin": "The gateway itself", "health": "The health server"}
"""Groups of routes that no setting opens."""
_MEDIA = {
    "application/json": "JSON",
    "text/event-stream": "events (SSE)",
    "multipart/form-data": "a form with a file",
    "text/plain": "text",
}
"""Kinds of bodies that have a word; others are named as in HTTP."""


@dataclass(frozen=True)
class Operation:
    """One thing to call, under one path or several."""

    method: str
    paths: tuple[str, ...]
    group: str
    summary: str
    scopes: tuple[str, ...]
    is_open: bool  # or can be: the configuration decides
    takes: tuple[str, ...]
    parameters: tuple[str, ...]
    responses: Mapping[str, Object]


def markdown(description: Object) -> str:
    """Return everything that the page says about routes."""
    operations = list(_operations(description))
    common = _common(operations)
    lines = [description["info"]["description"], ""]
    lines += ["Wherever a request is read, it can also be refused as HTTP: " + _errors(common) + ".", ""]
    lines += ["## Headers of responses", "", "| header | |", "|---|---|"]
    lines += [
        f"| `{name}` | {_line(header.get('description', ''))} |"
        for name, header in description["components"]["headers"].items()
    ]
    group = ""
    for operation in operations:
        if operation.group != group:
            group = operation.group
            lines += ["", f"## {HEADINGS.get(group, f'Group `{group}`')}"]
        lines += ["", *_section(operation, common)]
    return "\n".join(lines) + "\n"


def _operations(description: Object) -> Iterator[Operation]:
    """Yield the operations in their order; what differs by its path alone is one."""
    found: dict[str, list[Operation]] = {}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            scopes = {scope for choice in operation["security"] for names in choice.values() for scope in names}
            one = Operation(
                method.upper(),
                (path,),
                operation["tags"][0],
                operation["summary"],
                tuple(sorted(scopes)),
                not all(operation["security"]),
                tuple(operation.get("requestBody", {}).get("content", {})),
                tuple(parameter["name"] for parameter in operation.get("parameters", ())),
                {status: _resolved(description, response) for status, response in operation["responses"].items()},
            )
            found.setdefault(f"{one.method} {operation['tags']} {one.summary}", []).append(one)
    for same in found.values():
        yield Operation(**{**vars(same[0]), "paths": tuple(path for one in same for path in one.paths)})


def _resolved(description: Object, response: Object) -> Object:
    if "$ref" not in response:
        return response
    found: Object = description["components"]["responses"][response["$ref"].rpartition("/")[2]]
    return found


def _common(operations: list[Operation]) -> dict[str, Object]:
    """Return the errors that do not depend on the route: every route that reads a body answers them alike."""
    texts = [{status: r["description"] for status, r in one.responses.items()} for one in operations if one.takes]
    same = set.intersection(*({(status, text) for status, text in one.items()} for one in texts)) if texts else set()
    return {status: {"description": text} for status, text in sorted(same) if status.startswith(("4", "505"))}


def _section(operation: Operation, common: Mapping[str, Object]) -> Iterator[str]:
    first, *others = operation.paths
    yield f"### {operation.method} {first}"
    yield ""
    also = f" Also {', '.join(f'`{path}`' for path in others)}." if others else ""
    yield f"{_line(operation.summary)}.{also}"
    yield ""
    key = f"a key with the scope {' or '.join(f'`{scope}`' for scope in operation.scopes)}"
    yield f"- Needs {'no key' if not operation.scopes else f'no key, or {key}' if operation.is_open else key}."
    if operation.takes or operation.parameters:
        takes = [_kind(kind) for kind in operation.takes] + [f"`{name}` in the path" for name in operation.parameters]
        yield f"- Takes {' and '.join(takes)}."
    errors = {status: r for status, r in operation.responses.items() if _codes(r) and status not in common}
    for status, response in operation.responses.items():
        if not _codes(response):
            kinds = " or ".join(_kind(kind) for kind in response.get("content", {}))
            yield f"- {status}: {_line(response['description'])}{f' {kinds}.' if kinds else ''}"
    if errors:
        yield f"- Errors: {_errors(errors)}."


def _errors(responses: Mapping[str, Object]) -> str:
    return "; ".join(
        f"{status} {', '.join(f'`{code}`' for code in _codes(response))}" for status, response in responses.items()
    )


def _codes(response: Object) -> list[str]:
    """Return the codes of an error's description, which gives each a line."""
    return re.findall(r"^`(\w+)`:", response["description"], re.MULTILINE)


def _kind(media: str) -> str:
    return _MEDIA.get(media, f"`{media}`")


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
