"""Which model a request is for: every name that clients can use, and the model behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api import auth
from llama_gguf.gateway.api.engine_views import ModelEntry
from llama_gguf.gateway.api.routes import Route
from llama_gguf.gateway.backends.backend import ModelBackend
from llama_gguf.gateway.request.reader import ReadingRules
from llama_gguf.keys.record import KeyRecord
from llama_gguf.states import ServiceState

TEXT_GROUPS = frozenset({"chat", "completions", "responses", "messages", "infill", "audio"})


_SEVERITY = (ServiceState.READY, ServiceState.UNREADY, ServiceState.STARTING, ServiceState.FAILED)


class Chosen(NamedTuple):
    """A model, and the name under which a request uses it."""

    backend: ModelBackend
    name: str


class ModelBackends:
    """All models of the appliance, in the order of the configuration. Never empty."""

    def __init__(self, backends: Sequence[ModelBackend]) -> None:
        self.all = tuple(backends)
        self.several = len(self.all) > 1
        self._chosen: dict[str, Chosen] = {
            name: Chosen(one, name) for one in self.all for name in (*one.names, *one.variants)
        }
        self.names = tuple(self._chosen)

    @property
    def first(self) -> ModelBackend:
        """The model of requests that name none."""
        return self.all[0]

    @property
    def service_state(self) -> ServiceState:
        """What the engines' states mean for clients: the worst of the required ones that are to be loaded."""
        states = [one.engine.service_state for one in self.all if one.one.required]
        return max(states, key=_SEVERITY.index, default=ServiceState.READY)

    def reading_rules(self) -> Mapping[str, ReadingRules]:
        """Return what bodies are read by, by the name of the model in them."""
        return {
            name: chosen.backend.variants.get(name, chosen.backend.reading) for name, chosen in self._chosen.items()
        }

    async def entries(self, allowed: Collection[str] | None) -> list[ModelEntry]:
        """Return every name that a key can use, all at once from what is known; `allowed`: the key's models.

        Only of a single model the engine is asked, and an error if it has failed.
        """
        found = []
        for one in self.all:
            engine = one.models.known if self.several else await one.models.body()
            for name in (*one.names, *one.variants):
                if allowed is None or name in allowed:
                    parent = one.name if name != one.name else ""
                    found.append(ModelEntry(name, one.residency, one.task, one.context, one.modalities, engine, parent))
        return found

    def check_supported(self, route: Route) -> None:
        """Refuse what no model does, before the body arrives. Raises GatewayError 501."""
        errors = [error for one in self.all if (error := unsupported(one, route)) is not None]
        if len(errors) == len(self.all):
            raise errors[0]

    def unnamed(self, key: KeyRecord, route: Route) -> str:
        """Return the model of a request that names none, by whose rules it is read."""
        return self._unnamed(key, route).name

    def _unnamed(self, key: KeyRecord | None, route: Route) -> ModelBackend:
        return next((one for one in self.all if _may_serve(one, route, key)), self.first)

    def choose(self, requested: str, key: KeyRecord | None, route: Route) -> Chosen:
        """Return the model that a request for `requested` is for. Raises GatewayError 404 or 501.

        A request that names none is for the first that does what the route is about. An unknown name is an error where
        there are several; one model serves them all, because clients come with names of their own.
        """
        chosen = self._chosen.get(requested)
        if chosen is None:
            if self.several and requested:
                raise _unknown(requested)
            one = self._unnamed(key, route)
            chosen = Chosen(one, auth.require_model(key, requested, one.names))
        elif key is not None and key.models is not None and requested not in key.models:
            raise _unknown(requested)
        if self.several and (error := unsupported(chosen.backend, route, chosen.name)) is not None:
            raise error
        return chosen


def unsupported(one: ModelBackend, route: Route, name: str = "") -> GatewayError | None:
    """Return the error of a request for what a model does not do; None if it may do it."""
    subject = f"The model {name!r}" if name else "This server's model"
    if not one.generates_text and route.group in TEXT_GROUPS and route.generates:
        return GatewayError("not_supported", f"{subject} does not generate text (engine.task).")
    if name and route.generates and route.group in _TASKS and one.task != _TASKS[route.group]:
        return GatewayError("not_supported", f"{subject} does not serve this route (engine.task is {one.task}).")
    if route.form_body and not one.audio:
        subject = f"The model {name!r}" if name else "The model of this server"
        return GatewayError(
            "not_supported",
            f"{subject} takes no audio input; the operator may have to configure model.mmproj.",
        )
    return None


def _may_serve(one: ModelBackend, route: Route, key: KeyRecord | None) -> bool:
    """Return whether a request that names no model can be for this one."""
    if unsupported(one, route, one.name) is not None:
        return False
    allowed = key.models if key is not None else None
    return allowed is None or any(name in allowed for name in (*one.names, *one.variants))


_TASKS = {"embeddings": "embed", "rerank": "rerank"}


def _unknown(requested: str) -> GatewayError:
    return GatewayError(
        "model_not_found",
        f"The model {requested!r} does not exist, or this API key is not allowed to use it.",
        param="model",
    )
