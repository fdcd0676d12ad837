"""The models of a configuration, each as settings of its own in which it is the only one.

So everything that serves one model, from the checks to llama-server's arguments, serves each of several. Works on
validated settings and on those of a snapshot alike; imports no pydantic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llama_gguf.settings.locations import ENGINE_PROGRAM

if TYPE_CHECKING:
    from llama_gguf.settings.sections.settings import Settings


@dataclass(frozen=True, slots=True)
class OneModel:
    """One model: what the appliance does with it, and settings whose `model` and `engine` are this model's.

    Of several models the main name in the API is the one in `models`, and its aliases follow.
    """

    key: str  # its name in `models`; "" for `model`
    program: str  # the name of its engine's program
    settings: Settings
    on_demand: bool = False  # loaded by the first request
    required: bool = True
    unload_after_seconds: float | None = None
    own_engine: frozenset[str] = frozenset()  # the engine settings that are not as in the common `engine`

    @property
    def place(self) -> str:
        """The dotted name of the model in the configuration."""
        return f"models.{self.key}" if self.key else "model"

    def place_of(self, name: str, *, own: bool = False) -> str:
        """Return where a setting of `settings` stands in the configuration, below `models`.

        `own`: where it can be set for this model alone, even if it is set for all of them.
        """
        if not self.key:
            return name
        if name.startswith("engine.") and (own or re.split(r"[.\[]", name)[1] in self.own_engine):
            return f"{self.place}.{name}"
        for prefix in ("model.", "model["):
            if name.startswith(prefix):
                return self.place + name.removeprefix("model")
        return self.place if name == "model" else name

    def placed(self, text: str, *, own: bool = False) -> str:
        """Return a message about `settings` with their places in the configuration; file names are left alone."""

        def place(match: re.Match[str]) -> str:
            section = self.settings.engine if match["section"] == "engine" else self.settings.model
            known = match["field"] is None or match["field"] in vars(section)
            return self.place_of(match.group(), own=own) if known else match.group()

        return _NAME.sub(place, text) if self.key else text

    def advice(self, hint: str, message: str) -> str:
        """Return the hint of a placed message: what is wrong with this model alone must not be changed for all."""
        return self.placed(hint, own=message.startswith(self.place))


_NAME = re.compile(
    r"""(?<![\w./"'-])(?:(?P<section>model|engine)\.(?P<field>\w+)(?:\[\d+\]|\.\w+)*|(?<!\w )model(?=: ))"""
)
"""The dotted name of a setting in a message, or of the whole section where a message begins with it."""


def each_model(settings: Settings) -> tuple[OneModel, ...]:
    """Return every model of the configuration, in its order; for `model:` the one whose settings these are."""
    if not settings.models:
        return (OneModel("", ENGINE_PROGRAM, settings, unload_after_seconds=settings.engine.sleep_idle_seconds),)
    found = []
    for key, served in settings.models.items():
        model = _replaced(served, aliases=(key, *(alias for alias in served.aliases if alias != key)))
        on_demand = served.load == "on_demand"
        unload_after = served.unload_after_seconds
        found.append(
            OneModel(
                key,
                f"{ENGINE_PROGRAM}-{key}",
                _replaced(settings, model=model, engine=served.engine, models={}),
                on_demand,
                served.required if served.required is not None else not on_demand,
                unload_after if unload_after is not None else served.engine.sleep_idle_seconds,
                _differences(served.engine, settings.engine),
            )
        )
    return tuple(found)


def with_engine(settings: Settings, **values: object) -> Settings:
    """Return the settings of one model with other values in `engine`, which are not validated."""
    changed: Settings = _replaced(settings, engine=_replaced(settings.engine, **values))
    return changed


def _differences(own: object, common: object) -> frozenset[str]:
    return frozenset(name for name, value in vars(own).items() if value != getattr(common, name))


def _replaced(section: Any, **values: object) -> Any:  # noqa: ANN401 - a section, or its plain form
    if isinstance(section, SimpleNamespace):
        return type(section)(**{**vars(section), **values})
    return section.model_copy(update=values)
