"""The shelf as commands see it: what is stored, and which models of a configuration or a running appliance use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_gguf.cli.appliance import inspect
from llama_gguf.errors import ConfigError
from llama_gguf.models.inventory import all_wanted
from llama_gguf.models.shelf.last_use import LastUse
from llama_gguf.models.shelf.scan import Stored, scan
from llama_gguf.models.shelf.use import Uses, uses_of
from llama_gguf.models.source import Wanted, hub_cache, plan_sources, served_names
from llama_gguf.settings import Locations, Settings
from llama_gguf.settings.one_model import OneModel, each_model
from llama_gguf.settings.words import closest


@dataclass(frozen=True)
class Shelf:
    """What is stored, and what uses it."""

    locations: Locations
    models: tuple[OneModel, ...]  # of the configuration
    stored: tuple[Stored, ...]
    uses: Uses  # of the configuration
    running: Uses  # of the appliance that runs now
    env: Mapping[str, str] = field(repr=False)

    @property
    def last_use(self) -> LastUse:
        """The record of last uses."""
        return LastUse(self.locations.models_dir)

    def used_by(self, stored: Stored) -> tuple[str, ...]:
        """Return the names of the models that use it, those of the running appliance too."""
        own, running = self.uses.of(stored), self.running.of(stored)
        return own + tuple(f"{name} (running)" for name in running if name not in own)

    def wanted(self, model: OneModel) -> tuple[Wanted, ...]:
        """Return the files of one model."""
        return all_wanted(plan_sources(model.settings.model, self.locations, self.env, model.place))


def open_shelf(settings: Settings, locations: Locations, env: Mapping[str, str]) -> Shelf:
    """Read the disk. Raises ConfigError."""
    models = each_model(settings)
    running = inspect(locations.run)
    served = running.snapshot.models if running.running and running.snapshot else ()
    return Shelf(
        locations,
        models,
        scan(locations.models_dir, hub_cache(locations, env)),
        uses_of(models, locations, env),
        uses_of(served, locations, env),
        env,
    )


def chosen_models(models: tuple[OneModel, ...], names: tuple[str, ...]) -> tuple[OneModel, ...]:
    """Return the models with these names, or aliases; all of them for none. Raises ConfigError for an unknown one."""
    if not names:
        return models
    known = {name: one for one in models for name in served_names(one.settings.model)}
    for name in names:
        if name not in known:
            near = closest(name, list(known))
            raise ConfigError(
                f"{name}: the configuration has no such model",
                hint=f"did you mean {near}?" if near else f"it has {', '.join(known)}",
            )
    return tuple(one for one in models if any(known[name] is one for name in names))
