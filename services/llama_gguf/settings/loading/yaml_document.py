"""YAML text -> plain tree, with the position of every key and value, and every problem of the text.

Owns the dialect: YAML 1.2's scalars (`on`, `yes` and `12:30` are text), one document, no anchors, aliases, merge
keys or tags (so nothing can expand), no duplicate keys, bounded depth. Pure: text in, values out. Errors that leave the
structure readable are collected, so that all of them are reported at once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, cast

import yaml
from pydantic import JsonValue
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from llama_gguf.errors import Problem
from llama_gguf.settings.loading.yaml_errors import MAX_DEPTH, Position, TooDeepError, syntax_problem
from llama_gguf.settings.schema_tree import SettingPath, dotted

_MAX_DIGITS = 30


@dataclass
class Document:
    """A parsed text. `keys` and `values` hold the position of each setting's name and value."""

    tree: dict[str, Any] = field(default_factory=dict)
    keys: dict[SettingPath, Position] = field(default_factory=dict)
    values: dict[SettingPath, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[SettingPath] = field(default_factory=set)  # set in a way that is not supported: an alias, a tag


class _Resolver(yaml.resolver.BaseResolver):
    """YAML 1.2's core schema, without infinities and NaN."""


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


class _Composer(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, _Resolver):
    """PyYAML's composer, which records anchors, aliases and tags instead of resolving them."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        _Resolver.__init__(self)
        self.found: list[tuple[str, str, str, Any]] = []  # code, message, hint, mark
        self._depth = 0
        self._aliases: set[str] = set()

    def compose_node(self, parent: Node | None, index: int | Node | None) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            if str(event.anchor) not in self._aliases:  # one message per alias, however often it is used
                self.found.append(("yaml-alias", f"alias *{event.anchor}: aliases are not supported", _REPEAT, event))
                self._aliases.add(str(event.anchor))
            start, end = cast(yaml.Mark, event.start_mark), cast(yaml.Mark, event.end_mark)
            return ScalarNode(_UNREAD, "", start, end)
        if event.anchor is not None:
            self.found.append(("yaml-anchor", f"anchor &{event.anchor}: anchors are not supported", _REPEAT, event))
            event.anchor = None
        tagged = event.tag not in (None, "!")
        if tagged:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self.found.append(("yaml-tag", f"tag {tag}: tags are not supported", "remove it", event))
            event.tag = None
            event.implicit = (True, True) if isinstance(event, yaml.ScalarEvent) else True
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeepError(problem="too deep", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)  # type: ignore[arg-type]  # a key node under a mapping
        self._depth -= 1
        return ScalarNode(_UNREAD, "", node.start_mark, node.end_mark) if tagged and node else node


_UNREAD = "tag:llama-gguf:unread"
_REPEAT = "write the value out where it is needed"


def parse(text: str, source: str) -> Document:
    """Parse one YAML document. Never raises: errors are in `problems`, and `tree` holds what could be parsed."""
    reading = _Reading(source)
    try:
        composer = _Composer(text)
        root = composer.get_single_node()
    except yaml.YAMLError as error:
        reading.document.problems.append(syntax_problem(error, text, source))
        return reading.document
    for code, message, hint, event in composer.found:
        reading.problem(code, message, _position(event), hint=hint)
    if root is None:
        reading.problem("empty-file", "the file contains no settings", Position(1, 1), hint=_EMPTY_HINT)
    elif not isinstance(root, MappingNode):
        message = f"expected settings (`key: value` lines), got {_kind(root)}"
        reading.problem("not-settings", message, _position(root))
    else:
        reading.document.tree = reading.mapping(root, ())
    return reading.document


_NOTHING_HINT = "give it a value, or remove the line; write null for none"
_EMPTY_HINT = "the minimal configuration is `model: {path: /path/to/model.gguf}`"


class _Reading:
    """Converts nodes to values and records positions; single use."""

    def __init__(self, source: str) -> None:
        self.document = Document()
        self._source = source

    def problem(self, code: str, message: str, at: Position, *, path: SettingPath = (), hint: str = "") -> None:
        self.document.problems.append(
            Problem(code, message, dotted(path), self._source, at.line, at.column, at.end_column, hint)
        )

    def mapping(self, node: MappingNode, path: SettingPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            if key in result:
                first = self.document.keys[here].line
                message = f"{dotted(here)}: given twice; first on line {first}"
                self.problem("duplicate-key", message, _position(key_node), path=here, hint="keep one of the two")
                continue
            self.document.keys[here] = _position(key_node)
            if self._has_unread(value_node, here):
                self.document.unread.add(here)
            else:
                result[key] = self._value(value_node, here)
        return result

    def _key(self, node: Node, path: SettingPath) -> str | None:
        if node.tag.endswith(":merge"):
            self.problem("yaml-merge", "merge keys (<<) are not supported", _position(node), path=path, hint=_REPEAT)
            return None
        if not isinstance(node, ScalarNode) or (node.style is None and not node.tag.endswith(":str")):
            shown = f"`{node.value}`" if isinstance(node, ScalarNode) else _kind(node)
            message = f"expected the name of a setting, got {shown}"
            self.problem("key-not-text", message, _position(node), path=path)
            return None
        return str(node.value)

    def _has_unread(self, node: Node, path: SettingPath) -> bool:
        """Return whether `node`, or an item of it, is empty, an alias, or has a tag."""
        if isinstance(node, SequenceNode):
            found = [self._has_unread(item, (*path, index)) for index, item in enumerate(node.value)]
            return any(found)  # after the loop: every item gets its message
        if not isinstance(node, ScalarNode):
            return False
        if node.tag != _UNREAD and not node.value and node.style is None:
            at = self.document.keys.get(path) or _position(node)
            self.problem("empty-value", f"{dotted(path)}: has no value", at, path=path, hint=_NOTHING_HINT)
            return True
        return node.tag == _UNREAD

    def _value(self, node: Node, path: SettingPath) -> JsonValue:
        self.document.values[path] = _position(node)
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        return scalar(node.tag.rpartition(":")[2], node.value)


def plain_tag(text: str) -> str:
    """Return the tag of `text` as a plain YAML scalar: null, bool, int, float or str."""
    tag = _Resolver().resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return str(tag).rpartition(":")[2]


def scalar(tag: str, text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar; a number with too many digits stays text, and validation rejects it."""
    match tag:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if len(text) <= _MAX_DIGITS:
            return int(text, 0) if text.startswith(("0x", "0o")) else int(text)
        case "float" if len(text) <= _MAX_DIGITS and math.isfinite(float(text)):
            return float(text)
        case _:
            return text


def _position(node: yaml.Node | yaml.Event) -> Position:
    start, end = cast(yaml.Mark, node.start_mark), cast(yaml.Mark, node.end_mark)
    same_line = end.line == start.line and end.column > start.column
    return Position(start.line + 1, start.column + 1, end.column + 1 if same_line else 0)


def _kind(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    return "a group" if isinstance(node, MappingNode) else f'the text "{str(node.value)[:40]}"'
