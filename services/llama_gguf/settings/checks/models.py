"""Checks of `models`: what concerns several models together. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from llama_gguf.errors import Problem
from llama_gguf.settings.one_model import each_model
from llama_gguf.settings.sections.settings import Settings
from llama_gguf.settings.sections.sources import sources_of


def one_or_several(settings: Settings) -> Iterator[Problem]:
    """Either `model` or `models` is set."""
    given = sources_of(settings.model) or sorted(settings.model.model_fields_set)
    if settings.models and given:
        message = "model: is set together with models"
        hint = "move it into models, under a name of its own, or remove one of both"
        yield Problem("model-and-models", message, f"model.{given[0]}", hint=hint)


def names(settings: Settings) -> Iterator[Problem]:
    """Every name in the API means one model, or one variant of it."""
    taken: dict[str, str] = {}
    for one in each_model(settings):
        aliases = [(alias, f"{one.place}.aliases") for alias in one.settings.model.aliases]
        variants = [(name, f"{one.place}.variants.{name}") for name in one.settings.model.variants]
        for name, place in [*aliases, *variants]:
            where = one.place if name == one.key else place
            if (first := taken.setdefault(name, where)) != where:
                message = f'{where}: the name "{name}" is taken by {first}'
                yield Problem("duplicate-alias", message, where, hint="give each model and each variant its own name")


def loading(settings: Settings) -> Iterator[Problem]:
    """When a model is loaded, and what depends on it."""
    for one in each_model(settings):
        own_sleep = f"{one.place}.engine.sleep_idle_seconds"
        if "sleep_idle_seconds" in one.own_engine and settings.models[one.key].unload_after_seconds is not None:
            message = f"{own_sleep}: has no effect beside unload_after_seconds"
            yield Problem("no-effect", message, own_sleep, severity="warning")
        if one.on_demand and settings.memory.host_mib == 0:
            message = f"{one.place}: cannot be loaded, because memory.host_mib is 0"
            yield Problem("no-memory", message, "memory.host_mib", hint="set it to auto, or to what models can use")
