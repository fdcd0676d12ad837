"""The routes, as data: their scope, how they are relayed, the JSON shape of their errors.

Anything that is not in this table does not exist for clients: the engine's other routes are unreachable. Paths are
compared byte for byte (no decoding, no normalization), and the engine always gets the table's own path, so engine
and gateway cannot interpret a path differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from llama_gguf.api_errors import GatewayError
from llama_gguf.settings.sections.scope import Scope

Dialect = Literal["openai", "anthropic"]
RouteKind = Literal[
    "relay",
    "models",
    "props",
    "health",
    "ping",
    "live",
    "metrics",
    "reload",
    "residency",
    "load",
    "unload",
    "pin",
    "unpin",
]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One method and path template. Compared by identity: there is one object for each.

    `generates`: uses tokens that are counted and charged. `queued`: needs a slot of the engine, so it waits for one.
    `template` names the route in metrics and logs, with `{id}` for the path parameter.
    """

    method: Literal["GET", "POST"]
    template: str
    group: str  # a RouteGroup, "admin" or "builtin"
    scope: Scope | None = "inference"
    kind: RouteKind = "relay"
    dialect: Dialect = "openai"
    generates: bool = False
    queued: bool = False
    json_body: bool = True
    form_body: bool = False  # multipart/form-data instead of JSON
    engine_path: str = ""  # default: the template
    body_group: str = ""  # the group whose bodies it takes, default: its own
    summary: str = ""

    @property
    def target(self) -> str:
        """The path of the request to the engine."""
        return self.engine_path or self.template

    @property
    def fields_group(self) -> str:
        """The route group whose fields a JSON body has."""
        return self.body_group or self.group


def _post(group: str, *paths: str, summary: str, **options: object) -> list[Route]:
    return [Route("POST", path, group, summary=summary, **options) for path in paths]  # type: ignore[arg-type]


def _generating(group: str, *paths: str, summary: str, **options: object) -> list[Route]:
    return _post(group, *paths, summary=summary, generates=True, queued=True, **options)


def _admin(method: Literal["GET", "POST"], path: str, summary: str, engine_path: str = "") -> Route:
    return Route(
        method,
        path,
        "admin",
        scope="admin",
        json_body=method == "POST",
        engine_path=engine_path,
        summary=summary,
    )


def _builtin(
    method: Literal["GET", "POST"], path: str, kind: RouteKind, summary: str, scope: Scope | None = None
) -> Route:
    has_body = kind in ("load", "unload", "pin", "unpin")
    return Route(method, path, "builtin", scope=scope, kind=kind, json_body=has_body, summary=summary)


ROUTES: tuple[Route, ...] = (
    *_generating("chat", "/v1/chat/completions", "/chat/completions", summary="OpenAI chat completions"),
    *_post(
        "chat",
        "/v1/chat/completions/input_tokens",
        "/chat/completions/input_tokens",
        summary="Count the tokens of a chat completions request",
    ),
    *_generating("completions", "/v1/completions", summary="OpenAI completions"),
    *_generating("completions", "/completions", "/completion", summary="llama.cpp completions"),
    *_generating("responses", "/v1/responses", "/responses", summary="OpenAI responses"),
    *_post(
        "responses",
        "/v1/responses/input_tokens",
        "/responses/input_tokens",
        summary="Count the tokens of a responses request",
    ),
    *_generating("messages", "/v1/messages", summary="Anthropic messages", dialect="anthropic"),
    *_post("messages", "/v1/messages/count_tokens", summary="Anthropic token counting", dialect="anthropic"),
    *_generating("embeddings", "/v1/embeddings", summary="OpenAI embeddings"),
    *_generating("embeddings", "/embeddings", "/embedding", summary="llama.cpp embeddings"),
    *_generating(
        "rerank", "/v1/rerank", "/rerank", "/v1/reranking", "/reranking", summary="Rank documents by relevance"
    ),
    *_generating("infill", "/infill", summary="Fill in the middle of code"),
    *_generating(
        "audio",
        "/v1/audio/transcriptions",
        "/audio/transcriptions",
        summary="OpenAI transcriptions; needs an audio-capable model",
        json_body=False,
        form_body=True,
    ),
    *_post("tokenize", "/tokenize", "/detokenize", summary="Tokenize, detokenize"),
    *_post("tokenize", "/apply-template", summary="Apply the chat template", body_group="chat"),
    Route(
        "GET",
        "/v1/models",
        "models",
        kind="models",
        json_body=False,
        summary="List the models, by alias; without a wait while they load",
    ),
    Route("GET", "/models", "models", kind="models", json_body=False, summary="List the models, by alias"),
    Route("GET", "/v1/models/{id}", "models", kind="models", json_body=False, summary="Describe one model"),
    Route(
        "GET",
        "/props",
        "props",
        kind="props",
        json_body=False,
        summary="The engine's properties, without file paths; needs scope `admin` unless the group is enabled",
    ),
    _admin("POST", "/props", "Change the engine's properties"),
    _admin("GET", "/slots", "State of each slot, prompts included"),
    _admin("POST", "/slots/{id}", "Save, restore or erase a slot's prompt cache"),
    _admin("GET", "/lora-adapters", "List the LoRA adapters and their scales"),
    _admin("POST", "/lora-adapters", "Set the scales of the LoRA adapters for all requests"),
    _admin("GET", "/engine/metrics", "The engine's own metrics", engine_path="/metrics"),
    _builtin("GET", "/ping", "ping", "Gateway liveness"),
    _builtin("GET", "/livez", "live", "Gateway liveness"),
    _builtin("GET", "/health", "health", "State of engine, gateway and queue as JSON"),
    _builtin("GET", "/v1/health", "health", "State of engine, gateway and queue as JSON"),
    _builtin("GET", "/metrics", "metrics", "Prometheus metrics"),
    _builtin("POST", "/reload", "reload", "Reload the keys file", scope="admin"),
    _builtin("GET", "/models/residency", "residency", "Which models are in memory, and what they use", scope="admin"),
    _builtin("POST", "/models/load", "load", 'Load a model: {"model": NAME}', scope="admin"),
    _builtin("POST", "/models/unload", "unload", "Unload a model once its requests have ended", scope="admin"),
    _builtin("POST", "/models/pin", "pin", "Load a model and keep it in memory", scope="admin"),
    _builtin("POST", "/models/unpin", "unpin", "Let a pinned model give way again", scope="admin"),
)

_ANTHROPIC = "/v1/messages"
_PARAMETERIZED = {
    "/v1/models/": (re.compile(r"[^\x00-\x1f\x7f?#]{1,256}"), "/v1/models/{id}"),
    "/slots/": (re.compile(r"[0-9]{1,4}"), "/slots/{id}"),
}


class RouteTable:
    """Looks up the routes that the configuration enables."""

    __slots__ = ("_by_call", "_methods")

    def __init__(self, groups: Iterable[str], *, metrics_need_key: bool, metrics_enabled: bool) -> None:
        open_groups = {*groups, "builtin", "admin"}
        self._by_call: dict[tuple[str, str], Route] = {}
        self._methods: dict[str, list[str]] = {}
        for entry in ROUTES:
            route = entry
            if route.kind == "metrics":
                if not metrics_enabled:
                    continue
                route = replace(route, scope="metrics" if metrics_need_key else None)
            elif route.kind == "props" and route.group not in open_groups:
                route = replace(route, group="admin", scope="admin")
            elif route.group not in open_groups:
                continue
            self._by_call[route.method, route.template] = route
            self._methods.setdefault(route.template, []).append(route.method)

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """Return the route of a request and its path parameter ("" if it has none).

        Raises GatewayError 404 or 405.
        """
        route = self._by_call.get((method, path))
        if route is not None and "{" not in path:
            return route, ""
        template, param = _template(path)
        methods = self._methods.get(template)
        if methods is None or (param == "" and "{" in path):
            raise GatewayError("not_found", "The route does not exist or is disabled.")
        route = self._by_call.get(("GET" if method == "HEAD" else method, template))
        if route is None:
            allow = ", ".join(sorted({*methods, "OPTIONS", *(("HEAD",) if "GET" in methods else ())}))
            raise GatewayError(
                "method_not_allowed",
                f"Method not allowed. Allowed: {allow}.",
                headers=(("Allow", allow),),
            )
        return route, param

    def methods(self, path: str) -> list[str]:
        """Return the methods of a path, for preflight responses; empty if there is no such route."""
        return self._methods.get(_template(path)[0], [])


def dialect_of(path: str) -> Dialect:
    """Return the error shape for a path that is not a route, or whose route is not known yet."""
    return "anthropic" if path == _ANTHROPIC or path.startswith(_ANTHROPIC + "/") else "openai"


def _template(path: str) -> tuple[str, str]:
    for prefix, (pattern, template) in _PARAMETERIZED.items():
        if path.startswith(prefix) and pattern.fullmatch(path, len(prefix)):
            return template, path[len(prefix) :]
    return path, ""
