"""The schema of the configuration: which settings exist, what each accepts, in words.

Reads the JSON Schema that pydantic generates from `Settings`, so there is no second list of settings. Pure; the only
module that navigates that schema: loading, messages, the reference and the command line use it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from llama_gguf.settings.sections.settings import Settings

SettingPath = tuple[str | int, ...]
Node = Mapping[str, Any]

ENV_PREFIX = "LLAMA_GGUF__"
ENV_DELIMITER = "__"


def dotted(path: Sequence[str | int]) -> str:
    """Return `path` in dotted form: `model.lora[0].scale`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def env_name(path: Sequence[str | int]) -> str:
    """Return the environment variable of the setting at `path`."""
    return ENV_PREFIX + ENV_DELIMITER.join(str(part).upper() for part in path)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting that holds a value (a list counts as one value)."""

    path: tuple[str, ...]
    node: Node  # its JSON Schema, unresolved: with null and references
    required: bool

    @property
    def name(self) -> str:
        """The dotted name."""
        return dotted(self.path)

    @property
    def default(self) -> JsonValue:
        """The default as a JSON value; None also if there is none."""
        return cast(JsonValue, self.node.get("default"))


class SettingsSchema:
    """The JSON Schema of `Settings`, by the paths of settings."""

    def __init__(self, schema: Node) -> None:
        self._schema = schema
        self._definitions: Node = schema.get("$defs", {})

    def resolve(self, node: Node) -> Node:
        """Follow references, and drop the null alternative of an optional setting."""
        while True:
            if "$ref" in node:
                node = self._definitions[node["$ref"].rpartition("/")[2]]
                continue
            options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
            if len(options) != 1:
                return node
            node = options[0]

    def at(self, path: Sequence[str | int]) -> Node | None:
        """Return the resolved schema at `path`, or None if no such setting exists."""
        node = self.resolve(self._schema)
        for part in path:
            child = node.get("items") if isinstance(part, int) else _child(node, part)
            if child is None:
                return None
            node = self.resolve(child)
        return node

    def keys(self, path: Sequence[str | int]) -> list[str]:
        """Return the names of the settings directly below `path`."""
        node = self.at(path)
        return list(node.get("properties", {})) if node else []

    def nullable(self, path: Sequence[str | int]) -> bool:
        """Return whether the setting at `path` accepts null."""
        parent = self.at(path[:-1])
        node = (parent or {}).get("properties", {}).get(path[-1], {})
        return any(option.get("type") == "null" for option in node.get("anyOf", ()))

    def known_prefix(self, path: Sequence[str | int]) -> SettingPath:
        """Return the longest prefix of `path` that names a setting (pydantic appends union tags to it)."""
        for end in range(len(path), 0, -1):
            if self.at(path[:end]) is not None:
                return tuple(path[:end])
        return ()

    def leaves(self) -> Iterator[Leaf]:
        """Yield every setting that holds a value, in the order of the sections."""
        yield from self._leaves(self.resolve(self._schema), ())

    def _leaves(self, group: Node, above: tuple[str, ...]) -> Iterator[Leaf]:
        required = group.get("required", ())
        for name, node in group["properties"].items():
            resolved = self.resolve(node)
            if "properties" in resolved:
                yield from self._leaves(resolved, (*above, name))
            else:
                yield Leaf((*above, name), node, name in required)

    def expected(self, path: Sequence[str | int]) -> str:
        """Say in words what the setting at `path` accepts."""
        node = self.at(path)
        return "nothing" if node is None else self.phrase(node)

    def phrase(self, node: Node) -> str:
        """Say in words what `node` accepts."""
        node = self.resolve(node)
        if "patternErrorMessage" in node:
            return cast(str, node["patternErrorMessage"])
        if "anyOf" in node:
            return either([self.phrase(option) for option in node["anyOf"] if option.get("type") != "null"])
        if "const" in node or "enum" in node:
            return either([f"`{value}`" for value in node.get("enum", [node.get("const")])])
        return _plain_phrase(node, self)

    def key_phrase(self, path: Sequence[str | int]) -> str:
        """Say in words what the names in the map at `path` are."""
        return cast(str, (self.at(path) or {}).get("keyErrorMessage", "text"))

    def choices(self, path: Sequence[str | int]) -> list[str]:
        """Return the values of the setting at `path`, if it is an enum."""
        node = self.at(path) or {}
        options = [self.resolve(option) for option in node.get("anyOf", [node])]
        return [str(value) for option in options for value in option.get("enum", ())]


def _child(node: Node, name: str) -> Node | None:
    """Return the schema of a setting of a group, or of any entry of a map."""
    child = node.get("properties", {}).get(name)
    if child is not None:
        return cast(Node, child)
    entries = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    return next((entry for entry in entries if isinstance(entry, Mapping)), None)


def either(options: Sequence[str]) -> str:
    """Join as in `a, b or c`; alternatives that already contain an "or" stay readable."""
    flat = [part for option in options for part in option.replace(" or ", ", ").split(", ")]
    return flat[0] if len(flat) == 1 else f"{', '.join(flat[:-1])} or {flat[-1]}"


def _plain_phrase(node: Node, schema: SettingsSchema) -> str:
    kind = node.get("type")
    if kind in _NOUNS:
        return _range(_NOUNS[kind], node)
    if kind == "string":
        return "a path" if node.get("format") == "path" else "text"
    if kind != "array":
        return {"boolean": "true or false", None: "any value"}.get(kind, "a group of settings")
    items = schema.resolve(node.get("items", {}))
    if "properties" in items:
        return "a list of groups of settings"
    plain = items.get("type") == "string" and "enum" not in items
    return "a list of texts" if plain else f"a list, each item {schema.phrase(items)}"


_NOUNS = {"integer": "a whole number", "number": "a number"}


def _range(noun: str, node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above = node.get("exclusiveMinimum")
    if above is not None:
        return f"{noun} above {above:g}" + (f", at most {_number(high)}" if high is not None else "")
    if low is not None and high is not None:
        return f"{noun} between {_number(low)} and {_number(high)}"
    if low is not None:
        return f"{noun} of at least {_number(low)}"
    return noun


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


@functools.cache
def settings_schema() -> SettingsSchema:
    """Return the schema of `Settings` (built once per process, about 20 ms)."""
    return SettingsSchema(Settings.model_json_schema())
