"""Text from a variable or a flag -> a JSON value of the type that its setting expects. Pure.

Never fails for scalars: text that cannot be converted stays text, and validation reports it in the same words as for
the file.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import cast

from pydantic import JsonValue

from llama_gguf.settings.loading.yaml_document import plain_tag, scalar
from llama_gguf.settings.loading.yaml_errors import MAX_DEPTH
from llama_gguf.settings.schema_tree import Node, SettingPath, SettingsSchema
from llama_gguf.settings.words import FALSE_WORDS, TRUE_WORDS

_SHELL_LISTS: tuple[SettingPath, ...] = (("engine", "extra_args"),)


def from_text(text: str, path: SettingPath, schema: SettingsSchema) -> JsonValue:
    """Return the JSON value of `text` for the setting at `path`.

    `null` clears a nullable setting; a list is JSON, or its items separated by commas (shell words for
    engine.extra_args). Raises ValueError for invalid JSON or quoting.
    """
    node = schema.at(path)
    if node is None:
        return text
    text = text.strip()
    if text == "null" and schema.nullable(path):
        return None
    options = [schema.resolve(option) for option in node.get("anyOf", [node])]
    for option in options:
        value = _as(option, text, path)
        if value is not text:
            return value
    return text


def _as(node: Node, text: str, path: SettingPath) -> JsonValue:
    kind = node.get("type")
    if kind == "object" and text.startswith("{"):
        return _json(text)
    if kind is None and "enum" not in node and "const" not in node:
        return _any(text)
    if kind == "array":
        return _items(node, text, path)
    if kind == "boolean":
        word = text.lower()
        return True if word in TRUE_WORDS else False if word in FALSE_WORDS else text
    if kind == "integer":
        return _number(text, ("int",))
    return _number(text, ("int", "float")) if kind == "number" else text


def _any(text: str) -> JsonValue:
    """Return the value of text for a setting that takes any: JSON, or what YAML reads a plain word as."""
    if text.startswith(("[", "{")):
        return _json(text)
    tag = plain_tag(text)
    return scalar(tag, text) if tag in ("int", "float", "bool", "null") else text


def _number(text: str, kinds: tuple[str, ...]) -> JsonValue:
    tag = plain_tag(text)
    return scalar(tag, text) if tag in kinds else text


def _items(node: Node, text: str, path: SettingPath) -> JsonValue:
    if text.startswith(("[", "{")):
        return _json(text)
    if path in _SHELL_LISTS:
        return list[JsonValue](shlex.split(text))
    each = node.get("items", {})
    is_number = each.get("type") in ("integer", "number")
    items = [item.strip() for item in text.split(",") if item.strip()]
    return [_as(each, item, path) if is_number else item for item in items]


def _json(text: str) -> JsonValue:
    """Parse JSON as strictly as the file: no duplicate keys, no NaN, bounded depth and digits."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_reject_constant,
            parse_int=lambda digits: scalar("int", digits),
            parse_float=lambda digits: scalar("float", digits),
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _depth(value, 0) > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    return cast(JsonValue, value)


_TOO_DEEP = "not valid JSON: it is nested too deeply"


def _without_duplicates(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    for key, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise ValueError(f'not valid JSON: "{key}" is given twice')
    return dict(pairs)


def _reject_constant(name: str) -> None:
    raise ValueError(f"not valid JSON: {name} is not a number")


def _depth(value: object, above: int) -> int:
    """Return how deeply `value` is nested, at most MAX_DEPTH + 1."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if above > MAX_DEPTH:
        return above
    return max((_depth(child, above + 1) for child in children), default=above)
