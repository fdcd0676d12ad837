"""The JSON Schema of config.yaml, for editors and other tools: pydantic's, plus the rules between settings.

Pure. The rules added here are those of `checks`, as far as a schema can express them; tests run both on the same files.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from pydantic import JsonValue

from llama_gguf.settings.checks.engine import PLAIN_CACHE
from llama_gguf.settings.checks.network import RESERVED_HEADERS, RESERVED_PATHS
from llama_gguf.settings.checks.reserved_args import RULES
from llama_gguf.settings.locations import MAX_RUN_DIR_BYTES
from llama_gguf.settings.sections.settings import Settings
from llama_gguf.settings.sections.sources import SOURCES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ARTIFACTS = ("Artifact", "Lora", "Model", "ServedModel")
_ORIGIN = r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[^/?#@*\s:]+)(:[0-9]+)?)$"
_STORE = r"^(memory|rediss?://([^:@/]*@)?(\[[0-9A-Fa-f:.]+\]|[^:@/?#]+)(:[1-9][0-9]{0,4})?(/[0-9]*)?)$"
_URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+([/?#].*)?$"
_VARIABLE = r"\$\{?[A-Za-z_]|\{\{"
_HOST = r"^([0-9A-Fa-f]*:[0-9A-Fa-f:.]+|(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*)$"


def _any_case(words: tuple[str, ...]) -> str:
    """Return a case-insensitive pattern for `words`; JSON Schema's patterns have no flag for it."""
    return "|".join("".join(f"[{c.upper()}{c}]" if c.isalpha() else c for c in word) for word in words)


_PROPERTIES: dict[str, dict[str, dict[str, JsonValue]]] = {
    # definition -> property -> what is added to it
    **{
        name: {
            "path": {"not": {"type": "string", "pattern": rf"://|^~|{_VARIABLE}"}},
            "name": {"not": {"type": "string", "pattern": rf"://|^/|(^|/)\.\.(/|$)|{_VARIABLE}"}},
            "url": {"pattern": _URL, "format": "uri"},
        }
        for name in _ARTIFACTS
    },
    "HuggingFace": {"file": {"pattern": r"\.[Gg][Gg][Uu][Ff]$"}},
    "Gateway": {
        "host": {"pattern": _HOST},
        "routes": {"minItems": 1, "uniqueItems": True},
    },
    "Health": {"host": {"pattern": _HOST}, "path": {"not": {"enum": list(RESERVED_PATHS)}}},
    "Limits": {"store": {"pattern": _STORE}},
    "Paths": {"run_dir": {"maxLength": MAX_RUN_DIR_BYTES}},
    "Auth": {"extra_header": {"not": {"type": "string", "pattern": f"^({_any_case(RESERVED_HEADERS)})$"}}},
}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a configuration file."""
    schema = copy.deepcopy(Settings.model_json_schema())
    for node in _nodes(schema):
        if isinstance(node.get("title"), str) and "properties" not in node:
            del node["title"]  # pydantic's titles repeat the names
    definitions = schema["$defs"]
    for definition, properties in _PROPERTIES.items():
        for name, extra in properties.items():
            _add(definitions[definition]["properties"][name], extra)
    for name in _ARTIFACTS:
        definitions[name]["oneOf"] = [_given(source) for source in SOURCES]
    for name in ("Model", "ServedModel"):
        definitions[name]["properties"]["aliases"].update(uniqueItems=True)
        definitions[name]["properties"]["aliases"]["items"]["pattern"] = r"^(?=.*\S)[^,\u0000-\u001f\u007f]*$"
    definitions["Cors"]["properties"]["allow_origins"]["items"]["pattern"] = _ORIGIN
    definitions["Bootstrap"]["allOf"] = _at_most_one(("env", "file"))
    definitions["Engine"]["allOf"] = _engine_rules()
    definitions["Engine"]["properties"]["extra_args"]["items"]["not"] = {
        "pattern": _argument_pattern("setting", "owned")
    }
    schema["allOf"] = [_draft_rule()]
    schema["oneOf"] = [_given("model"), {"required": ["models"], "properties": {"models": {"minProperties": 1}}}]
    return {"$schema": DIALECT, **schema, "title": "llama-gguf configuration"}


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(child)


def _add(node: dict[str, Any], extra: dict[str, JsonValue]) -> None:
    """Add keywords; one that exists already is combined with the new one."""
    if set(extra) & set(node):
        node.setdefault("allOf", []).append(extra)
    else:
        node.update(extra)


def _given(name: str) -> dict[str, Any]:
    """Return the condition that a property is present and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _at_most_one(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"not": {"allOf": [_given(left), _given(right)]}}
        for index, left in enumerate(names)
        for right in names[index + 1 :]
    ] + [{"not": {"allOf": [_given(name), _is("generate", True)]}} for name in names]


def _is(name: str, value: JsonValue) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"const": value}}}


def _engine_rules() -> list[dict[str, Any]]:
    plain = {"properties": {"cache_type_v": {"enum": list(PLAIN_CACHE)}}}
    safe = {"properties": {"extra_args": {"items": {"not": {"pattern": _argument_pattern("unsafe")}}}}}
    return [
        {"if": _is("flash_attention", "off"), "then": plain},
        {"if": {"not": _is("allow_unsafe_args", True)}, "then": safe},
    ]


def _draft_rule() -> dict[str, Any]:
    other_task = {"required": ["task"], "properties": {"task": {"enum": ["embed", "rerank"]}}}
    return {
        "if": {"required": ["engine"], "properties": {"engine": other_task}},
        "then": {"properties": {"model": {"properties": {"draft": {"type": "null"}}}}},
    }


def _argument_pattern(*kinds: str) -> str:
    """Return a pattern for the spellings of reserved arguments, `_` for `-` and `=value` included."""
    names = sorted(name for rule in RULES if rule.kind in kinds for name in rule.names)
    spelled = []
    for name in names:
        dashes = re.match("-+", name)
        start = dashes.group() if dashes else ""
        body = re.escape(name[len(start) :]).replace(r"\-", "-")
        spelled.append(start + (body.replace("-", "[-_]") if start == "--" else body))
    return f"^({'|'.join(spelled)})(=.*)?$"
