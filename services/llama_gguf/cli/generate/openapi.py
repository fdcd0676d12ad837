"""schema/openapi.json: the gateway's document with the health server's responses merged into it.

The two servers share some paths, and OpenAPI has one entry for a path: such an operation names both servers, and its
responses say which server they belong to. The health server's are those of its pure function for every state.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, get_args

from llama_gguf import __version__
from llama_gguf.cli.generate.gateway_openapi import document, server
from llama_gguf.health.responses import Response, respond
from llama_gguf.health.state import Status
from llama_gguf.settings.health_paths import DETAILS, LIVE, PING, READY, STARTUP
from llama_gguf.settings.platform import Platform
from llama_gguf.settings.sections.health import Health
from llama_gguf.states import ServiceState

Object = dict[str, Any]

_SUMMARIES = {
    PING: "The platform's health check, under the path `health.path`",
    LIVE: "Liveness: fails only when a restart is required",
    READY: "Readiness: whether it accepts requests",
    STARTUP: "Startup: whether it has been ready once",
    DETAILS: "State, phase, reason and progress as JSON",
}


def openapi() -> str:
    """Return openapi.json."""
    tree = document(__version__)
    health = server("The health server", Health.model_fields["port"].default)
    for path, summary in _SUMMARIES.items():
        _merge(tree, path, summary, health)
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _merge(tree: Object, path: str, summary: str, health: Object) -> None:
    """Add the health server's responses on `path`; operations without `servers` are the gateway's only."""
    paths = tree["paths"]
    responses = {str(status): _response(by_state) for status, by_state in sorted(health_responses(path).items())}
    own = paths.get(path, {}).get("get")
    if own is None:
        paths.setdefault(path, {})["get"] = {
            "operationId": f"health_{path.strip('/')}",
            "summary": summary,
            "tags": ["health"],
            "security": [],
            "responses": responses,
            "servers": [health],
        }
        return
    own["summary"] += f". On the health server: {summary[0].lower()}{summary[1:]}"
    own["tags"].append("health")
    own["servers"] = [*tree["servers"], health]
    for status, added in responses.items():
        existing = own["responses"].setdefault(status, added)
        if existing is not added:
            existing["description"] = f"Gateway: {existing['description']} {added['description']}"
            existing |= {"content": added["content"]} if "content" in added and "content" not in existing else {}
    own["responses"] = dict(sorted(own["responses"].items()))


def health_responses(path: str) -> dict[int, dict[str, Response]]:
    """Return the health server's responses to a GET of `path`: status -> state, with its platform if it matters."""
    found: dict[int, dict[str, Response]] = {}
    for status in _statuses():
        by_platform: dict[Platform, Response] = {
            platform: respond(path, PING, platform, status) for platform in get_args(Platform)
        }
        usual = by_platform["plain"]
        found.setdefault(usual.status, {})[_name(status)] = usual
        for platform, one in by_platform.items():
            if one.status != usual.status:
                found.setdefault(one.status, {})[f"{_name(status)} on {platform}"] = one
    return found


def _statuses() -> Iterator[Status]:
    """Yield every state, before and after the first `ready`; `starting` is only before it, `unready` only after it."""
    impossible = {(ServiceState.STARTING, True), (ServiceState.READY, False), (ServiceState.UNREADY, False)}
    for state, was_ready in itertools.product(ServiceState, (False, True)):
        if (state, was_ready) in impossible:
            continue
        yield Status(state, 0.0, was_ready=was_ready)


def _name(status: Status) -> str:
    if status.state in (ServiceState.STARTING, ServiceState.READY, ServiceState.UNREADY):
        return status.state
    return f"{status.state}, {'after' if status.was_ready else 'before'} it was ready"


def _response(by_state: dict[str, Response]) -> Object:
    states = dict.fromkeys(by_state)
    for state in (ServiceState.DRAINING, ServiceState.FAILED):
        both = [f"{state}, {when} it was ready" for when in ("before", "after")]
        if all(name in states for name in both):
            states = dict.fromkeys(state if name == both[0] else name for name in states if name != both[1])
    response: Object = {"description": f"Health server: {'; '.join(states)}."}
    content: Object = {found.content_type.partition(";")[0]: {} for found in by_state.values() if found.body}
    return response | {"content": content} if content else response
