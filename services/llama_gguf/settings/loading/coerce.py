"""Text from a variable or a flag -> a JSON value of the kind its setting wants. Pure.

Never fails for scalars: text that does not read as the wanted kind stays text, and validation says what was wrong
with it, in the same words as for the file.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import cast

from pydantic import JsonValue

from llama_gguf.settings.loading.yaml_document import plain_tag, scalar
from llama_gguf.settings.loading.yaml_errors import MAX_DEPTH
from llama_gguf.settings.schema_tree import Node, Path, Shape
from llama_gguf.settings.words import FALSE_WORDS, TRUE_WORDS

_SHELL_LISTS: tuple[Path, ...] = (("engine", "extra_args"),)


def from_text(text: str, path: Path, shape: Shape) -> JsonValue:
    """Return the JSON value that `text` stands for in the setting at `path`.

    `null` clears a setting that may be null; a list is JSON, or its items separated by commas (words as a shell
    splits them for engine.extra_args). Raises ValueError for JSON or quoting that cannot be read.
    """
    node = shape.at(path)
    if node is None:
        return text
    text = text.strip()
    if text == "null" and shape.nullable(path):
        return None
    options = [shape.resolve(option) for option in node.get("anyOf", [node])]
    for option in options:
        value = _as(option, text, path)
        if value is not text:
            return value
    return text


def _as(node: Node, text: str, path: Path) -> JsonValue:
    kind = node.get("type")
    if kind == "object" and text.startswith("{"):
        return _json(text)
    if kind == "array":
        return _items(text, path)
    if kind == "boolean":
        word = text.lower()
        return True if word in TRUE_WORDS else False if word in FALSE_WORDS else text
    if kind == "integer":
        return _number(text, ("int",))
    return _number(text, ("int", "float")) if kind == "number" else text


def _number(text: str, kinds: tuple[str, ...]) -> JsonValue:
    tag = plain_tag(text)
    return scalar(tag, text) if tag in kinds else text


def _items(text: str, path: Path) -> JsonValue:
    if text.startswith(("[", "{")):
        return _json(text)
    if path in _SHELL_LISTS:
        return list[JsonValue](shlex.split(text))
    return [item.strip() for item in text.split(",") if item.strip()]


def _json(text: str) -> JsonValue:
    """Read JSON as strictly as the file is read: no key twice, no NaN, no abysses, no endless numbers."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
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


_TOO_DEEP = "not valid JSON: nested too deeply"


def _without_duplicates(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    for key, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise ValueError(f'not valid JSON: "{key}" is given twice')
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not valid JSON: {name} is no number")


def _depth(value: object, above: int) -> int:
    """Return how deep `value` is nested, not looking further than MAX_DEPTH."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if above > MAX_DEPTH:
        return above
    return max((_depth(child, above + 1) for child in children), default=above)
