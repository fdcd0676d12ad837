"""Layers of configuration, merged in order; every value has its origin.

Pure. A layer is a list of assignments; later layers win. A model source set in one layer replaces the source (and what
belongs to it) of the layers below, so that `MODEL_NAME` in a template does not conflict with the `model.path` of the
image's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llama_gguf.errors import Problem
from llama_gguf.settings.schema_tree import SettingPath, dotted, env_name
from llama_gguf.settings.sections.sources import SOURCES

Kind = Literal["default", "file", "platform", "old name", "environment", "flag"]
_ARTIFACTS: tuple[SettingPath, ...] = ((), ("mmproj",), ("draft",))
_COMPANIONS = ("mmproj", "draft", "lora", "chat_template")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from. `detail` is a file name, a variable's name or a flag; line 0 = not a file."""

    kind: Kind
    detail: str = ""
    line: int = 0
    column: int = 0
    end_column: int = 0

    @property
    def source(self) -> str:
        """The `source` of a Problem about this value."""
        return f"environment variable {self.detail}" if self.kind in _VARIABLES else self.detail

    def __str__(self) -> str:
        if self.kind == "default":
            return "default"
        return f"{self.detail}:{self.line}" if self.line else self.source


_VARIABLES = ("platform", "old name", "environment")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One setting and its value (a JSON value; a dict only if it is empty)."""

    path: SettingPath
    value: Any
    origin: Origin


@dataclass
class Merged:
    """The merged tree, the origin of everything in it, and warnings about what was dropped."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[SettingPath, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def flatten(value: object, origin: Origin, path: SettingPath = ()) -> Iterator[Assignment]:
    """Yield an assignment for every leaf below `value`; lists are leaves."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from flatten(child, origin, (*path, key))
    elif path:
        yield Assignment(path, value, origin)


def merge(layers: Iterable[Sequence[Assignment]]) -> Merged:
    """Merge `layers`; the last one wins."""
    merged = Merged()
    for layer in layers:
        for model in _models(merged):
            for artifact in _ARTIFACTS:
                _replace_source(merged, layer, model, (*model, *artifact))
        for assignment in layer:
            _assign(merged, assignment)
    return merged


def _models(merged: Merged) -> list[SettingPath]:
    """Return the paths of all models that the layers so far define."""
    several = merged.tree.get("models")
    return [("model",), *(("models", name) for name in several)] if isinstance(several, dict) else [("model",)]


def with_known_names(layer: Sequence[Assignment], below: Sequence[Assignment]) -> list[Assignment]:
    """Return a layer of variables with the names of models as the layer below spells them.

    Variables have neither small letters nor hyphens: `…__MODELS__MY_MODEL__…` is `models.my-model`, if there is one.
    """
    known = {str(one.path[1]): str(one.path[1]) for one in below if len(one.path) > 1 and one.path[0] == "models"}
    spelled = {name.replace("-", "_"): name for name in known} | known
    return [
        replace(one, path=("models", spelled.get(str(one.path[1]), one.path[1]), *one.path[2:]))
        if len(one.path) > 1 and one.path[0] == "models"
        else one
        for one in layer
    ]


def _assign(merged: Merged, assignment: Assignment) -> None:
    node = merged.tree
    for depth, part in enumerate(assignment.path[:-1], start=1):
        child = node.setdefault(str(part), {})
        if not isinstance(child, dict):
            if child is not None:
                return  # a value where a group is expected: validation reports it at its own position
            child = node[str(part)] = {}
        merged.origins.setdefault(assignment.path[:depth], assignment.origin)
        node = child
    node[str(assignment.path[-1])] = assignment.value
    merged.origins[assignment.path] = assignment.origin


def _sources(layer: Iterable[Assignment], artifact: SettingPath) -> dict[str, Origin]:
    depth = len(artifact)
    return {
        str(a.path[depth]): a.origin
        for a in layer
        if len(a.path) > depth and a.path[:depth] == artifact and a.path[depth] in SOURCES and a.value is not None
    }


def _replace_source(merged: Merged, layer: Sequence[Assignment], model: SettingPath, artifact: SettingPath) -> None:
    chosen = _sources(layer, artifact)
    node: Any = merged.tree
    for part in artifact:
        node = node.get(part) if isinstance(node, dict) else None
    if not chosen or not isinstance(node, dict):
        return
    existing = {name for name in SOURCES if node.get(name) is not None}
    if not existing:
        return
    refined = existing == {"hf"} and set(chosen) == {"hf"}  # e.g. only another revision of the same repository
    new = next(iter(chosen.values()))
    if artifact == model and not refined:
        for name in filter(node.get, _COMPANIONS):
            message = f"retained, although {new} replaces its model"
            path = (*model, name)
            hint = f"clear it with {env_name(path)}=null if it does not fit"
            at = merged.origins.get(path, new)
            merged.problems.append(_warning("kept-companion", path, message, hint, at))
    for name in ("sha256",) if refined else (*SOURCES, "sha256", "token_env"):
        if node.pop(name, None) is None:
            continue
        path = (*artifact, name)
        old = merged.origins.get(path)
        for replaced in [known for known in merged.origins if known[: len(path)] == path]:
            del merged.origins[replaced]
        if old is not None and name == "sha256" and new.kind != "default":
            message, hint = f"ignored, because {new} sets another file", "set the checksum where the file is set"
            merged.problems.append(_warning("dropped-checksum", path, message, hint, old))


def _warning(code: str, path: SettingPath, message: str, hint: str, at: Origin) -> Problem:
    name = dotted(path)
    position = (at.source, at.line, at.column, at.end_column)
    return Problem(code, f"{name}: {message}", name, *position, hint=hint, severity="warning")
