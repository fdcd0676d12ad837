"""Which files on disk a configuration uses: by the files that its models have, and those that they will get."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_gguf.models.hub.cache_layout import repository
from llama_gguf.models.inventory import all_wanted, file_status
from llama_gguf.models.shelf.scan import Stored
from llama_gguf.models.source import AtUrl, OnHub, Wanted, plan_sources, split_names
from llama_gguf.settings import Locations
from llama_gguf.settings.one_model import OneModel


@dataclass(frozen=True, slots=True)
class Uses:
    """Real path of a file -> the names of its models; destinations and repositories of downloads to come."""

    files: Mapping[str, tuple[str, ...]]
    destinations: Mapping[str, tuple[str, ...]]
    repositories: Mapping[str, tuple[str, ...]]

    def of(self, stored: Stored) -> tuple[str, ...]:
        """Return the names of the models that use `stored`, or that will resume it."""
        if stored.state == "complete":
            return self.files.get(os.path.realpath(stored.path), ())
        if stored.repository:
            return self.repositories.get(stored.repository.name.lower(), ())
        return self.destinations.get(os.path.realpath(stored.path.with_suffix("")), ())


def uses_of(models: Iterable[OneModel], locations: Locations, env: Mapping[str, str]) -> Uses:
    """Return what `models` use. Raises ConfigError."""
    files: dict[str, set[str]] = defaultdict(set)
    destinations: dict[str, set[str]] = defaultdict(set)
    repositories: dict[str, set[str]] = defaultdict(set)
    for one in models:
        for wanted in all_wanted(plan_sources(one.settings.model, locations, env)):
            for path in files_of(wanted):
                files[os.path.realpath(path)].add(one.place)
            match wanted.origin:
                case AtUrl(_, path):
                    for name in split_names(path.name):
                        destinations[os.path.realpath(path.with_name(name))].add(one.place)
                case OnHub() as origin:
                    repositories[repository(origin.caches[0], origin).name.lower()].add(one.place)
                case _:
                    pass
    return Uses(
        *({key: tuple(sorted(names)) for key, names in one.items()} for one in (files, destinations, repositories))
    )


def files_of(wanted: Wanted) -> list[Path]:
    """Return the files of `wanted` that are on disk, all parts."""
    path = file_status(wanted).path
    return [part for name in split_names(path.name) if (part := path.with_name(name)).is_file()]
