"""The line, variable or flag that a problem is about. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from llama_gguf.errors import Problem
from llama_gguf.settings.loading.layers import Merged, Origin
from llama_gguf.settings.loading.yaml_document import Document
from llama_gguf.settings.loading.yaml_errors import Position
from llama_gguf.settings.schema_tree import SettingPath


def file_origin(source: str, at: Position) -> Origin:
    """Return the origin of a value at a position in the file `source`."""
    return Origin("file", source, at.line, at.column, at.end_column)


def parts(path: str) -> SettingPath:
    """Return `model.lora[0].scale` as a path."""
    found: list[str | int] = []
    for piece in path.replace("[", ".[").split("."):
        if piece.startswith("["):
            found.append(int(piece[1:-1]))
        elif piece:
            found.append(piece)
    return tuple(found)


def with_origin(problem: Problem, path: SettingPath, merged: Merged, read: Document, file: str) -> Problem:
    """Return `problem` with the origin of the setting at `path`: its value, its key if unknown, or its group."""
    if problem.source:
        return problem
    for end in range(len(path), 0, -1):
        here = path[:end]
        on_key = problem.code == "unknown-key" or end < len(path)
        origin = _origin(here, merged, read, file, on_key=on_key)
        if origin is not None:
            return _at(problem, origin)
    return dataclasses.replace(problem, source=file)


def _origin(path: SettingPath, merged: Merged, read: Document, file: str, *, on_key: bool) -> Origin | None:
    origin = merged.origins.get(path)
    if origin is not None and origin.kind != "file":
        return origin
    order = (read.keys, read.values) if on_key else (read.values, read.keys)
    for positions in order:
        if path in positions:
            return file_origin(file, positions[path])
    return origin


def with_origin_by_name(problem: Problem, origins: Mapping[str, Origin]) -> Problem:
    """The same for a problem found later, when only the origins of settings are known."""
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
