"""Which line, variable or flag a problem is about. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from llama_gguf.errors import Problem
from llama_gguf.settings.loading.layers import Merged, Origin
from llama_gguf.settings.loading.yaml_document import Document
from llama_gguf.settings.loading.yaml_errors import Place
from llama_gguf.settings.schema_tree import Path


def file_origin(source: str, place: Place) -> Origin:
    """Return the origin of a value that stands at `place` of the file `source`."""
    return Origin("file", source, place.line, place.column, place.end_column)


def parts(path: str) -> Path:
    """Return `model.lora[0].scale` as a path."""
    found: list[str | int] = []
    for piece in path.replace("[", ".[").split("."):
        if piece.startswith("["):
            found.append(int(piece[1:-1]))
        elif piece:
            found.append(piece)
    return tuple(found)


def place(problem: Problem, path: Path, merged: Merged, read: Document, file: str) -> Problem:
    """Give `problem` the place of the setting at `path`: the value, the key of an unknown one, or the nearest group."""
    if problem.source:
        return problem
    for end in range(len(path), 0, -1):
        here = path[:end]
        on_key = problem.code == "unknown-key" or end < len(path)
        origin = _origin(here, merged, read, file, on_key=on_key)
        if origin is not None:
            return _at(problem, origin)
    return dataclasses.replace(problem, source=file)


def _origin(path: Path, merged: Merged, read: Document, file: str, *, on_key: bool) -> Origin | None:
    origin = merged.origins.get(path)
    if origin is not None and origin.kind != "file":
        return origin
    order = (read.keys, read.values) if on_key else (read.values, read.keys)
    for places in order:
        if path in places:
            return file_origin(file, places[path])
    return origin


def place_by_name(problem: Problem, origins: Mapping[str, Origin]) -> Problem:
    """Do the same for a problem found later, when only the origins of settings are known."""
    name = problem.path
    while name and not problem.source:
        if origin := origins.get(name):
            return _at(problem, origin)
        name = name[: max(name.rfind("."), name.rfind("["), 0)]
    return problem


def _at(problem: Problem, origin: Origin) -> Problem:
    return dataclasses.replace(
        problem, source=origin.source, line=origin.line, column=origin.column, end_column=origin.end_column
    )
