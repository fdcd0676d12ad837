"""JSON schemas: what llama-server's grammar converter ignores, and what it must not be given. Pure.

The converter (common/json-schema.cpp and json-schema-to-grammar.cpp of the pinned llama.cpp) understands a part of JSON
Schema and passes over the rest in silence: an answer then breaks the schema it was promised to follow. With `strict`
that is refused, without it the client is warned. It also recurses, repeats and runs recursive regular expressions over
names, so that depth, size and lengths have bounds whether or not it is strict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.constraints.patterns import pattern_defect
from llama_gguf.gateway.request.refusal import kind, quoted, refusal

_MAX_NAME = 256  # of a property or definition, in characters: names become rules by a recursive regular expression
_MAX_REF = 512
_MAX_COUNT = 2000  # the grammar's own limit of repetitions
_MAX_PROPERTIES = 500  # of one object: the time for rules of optional ones grows with their cube (2000: over 10 s)
_MAX_ENUM = 2000  # each value is a state of the grammar, compared with all others (100,000 stop all slots for 30 s)
_MAX_BOUND = 2**62  # the engine counts in 64 bits
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs"}) | {
    "definitions",
    "deprecated",
    "readOnly",
    "writeOnly",
}
_FORMATS = ("date", "time", "date-time", "uuid", "uuid1", "uuid2", "uuid3", "uuid4", "uuid5")
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


@dataclass(frozen=True, slots=True)
class SchemaLimits:
    """`nodes`: schemas within the schema; `depth`: of schemas in each other."""

    nodes: int
    depth: int


def check_schema(schema: object, path: str, limits: SchemaLimits, changes: Changes, *, strict: bool) -> None:
    """Refuse a schema that is too large, and what would be ignored of a strict one; else warn. Raises GatewayError."""
    if not isinstance(schema, dict):
        raise refusal(path, f"must be a JSON schema, not {kind(schema)}.")
    walk = _Walk(schema, path, limits)
    for where, keyword in walk.ignored():
        if strict:
            raise refusal(f"{where}.{keyword}", "cannot be enforced here; leave it out, or do not set `strict`.")
        changes.warn(f"{where}.{keyword} is not enforced")
    changes.changed = changes.changed or walk.shortened


class _Walk:
    """Visits every schema in a schema once, without recursion."""

    def __init__(self, root: dict[str, Any], path: str, limits: SchemaLimits) -> None:
        self._root = root
        self._path = path
        self._limits = limits
        self._nodes = 0
        self._stack: list[tuple[Any, str, int]] = [(root, path, 1)]
        self._resolved: set[str] = set()
        self.shortened = False  # something was taken out or written anew that the engine would have refused

    def ignored(self) -> Iterator[tuple[str, str]]:
        """Return path and keyword of all that has no effect. Raises GatewayError for what is not allowed at all."""
        while self._stack:
            schema, path, depth = self._stack.pop()
            if not isinstance(schema, dict):
                raise refusal(path, f"must be a JSON schema, not {kind(schema)}.")
            self._nodes += 1
            if self._nodes > self._limits.nodes:
                raise refusal(self._path, f"has more than {self._limits.nodes} schemas in it.")
            if depth > self._limits.depth:
                raise refusal(self._path, f"is nested deeper than {self._limits.depth} schemas.")
            _check_lengths(schema, path)
            for keyword in _check_numbers(schema, path):
                del schema[keyword]
                self.shortened = True
                yield path, keyword
            honoured = self._visit(schema, path, depth)
            for keyword in schema:
                if keyword not in honoured and keyword not in _ANNOTATIONS:
                    yield path, keyword

    def _push(self, schema: object, path: str, depth: int) -> None:
        self._stack.append((schema, path, depth + 1))

    def _visit(self, schema: dict[str, Any], path: str, depth: int) -> set[str]:
        """Put the schemas of one schema on the stack, and return the keywords that have an effect in it."""
        if "$ref" in schema:
            self._follow(schema["$ref"], path, depth)
            return {"$ref"}
        for key in ("oneOf", "anyOf"):
            if key in schema:
                self._push_all(schema[key], f"{path}.{key}", depth)
                return {key}
        forms = schema.get("type")
        if isinstance(forms, list):
            found = {"type"}
            for form in forms:
                found |= self._visit_type(schema, form, path, depth)
            return found
        return {"type"} | self._visit_type(schema, forms, path, depth)

    def _visit_type(self, schema: dict[str, Any], form: object, path: str, depth: int) -> set[str]:
        for key in ("const", "enum"):
            if key in schema:
                return {key}
        has_properties = "properties" in schema or schema.get("additionalProperties", True) is not True
        if form is None:
            form = _implied_type(schema, has_properties)
        if "allOf" in schema and (form in ("string", "allOf") or (form == "object" and not has_properties)):
            self._push_all(schema["allOf"], f"{path}.allOf", depth)
            return {"allOf"}
        if form == "object":
            return self._visit_object(schema, path, depth)
        if form == "array":
            return self._visit_array(schema, path, depth)
        if form == "string":
            return _string_keywords(schema)
        return set(_BOUNDS - _weaker_bounds(schema)) if form == "integer" else set()

    def _visit_object(self, schema: dict[str, Any], path: str, depth: int) -> set[str]:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise refusal(f"{path}.properties", f"must be an object, not {kind(properties)}.")
        if len(properties) > _MAX_PROPERTIES:
            raise refusal(f"{path}.properties", f"must not have more than {_MAX_PROPERTIES} entries.")
        for name, inner in properties.items():
            _check_name(name, f"{path}.properties")
            if inner is True:  # "anything", which the engine knows only as an empty schema
                properties[name] = {}
                self.shortened = True
            self._push(properties[name], f"{path}.properties.{name}", depth)
        if isinstance(schema.get("additionalProperties"), dict):
            self._push(schema["additionalProperties"], f"{path}.additionalProperties", depth)
        required = schema.get("required", [])
        absent = isinstance(required, list) and any(
            name not in properties for name in required if isinstance(name, str)
        )
        return {"properties", "additionalProperties"} | (set() if absent else {"required"})

    def _visit_array(self, schema: dict[str, Any], path: str, depth: int) -> set[str]:
        key = "items" if "items" in schema else "prefixItems"
        items = schema.get(key)
        if isinstance(items, list):
            self._push_all(items, f"{path}.{key}", depth)
            return {key}
        if items is not None:
            self._push(items, f"{path}.{key}", depth)
        return {key, "minItems", "maxItems"}

    def _push_all(self, schemas: object, path: str, depth: int) -> None:
        if not isinstance(schemas, list):
            raise refusal(path, f"must be a list of schemas, not {kind(schemas)}.")
        for index, inner in enumerate(schemas):
            self._push(inner, f"{path}[{index}]", depth)

    def _follow(self, ref: object, path: str, depth: int) -> None:
        """Visit the target of a `$ref` the first time. Raises GatewayError if it leads nowhere, or only to itself."""
        seen: set[str] = set()
        while True:
            if not isinstance(ref, str) or len(ref) > _MAX_REF or not (ref == "#" or ref.startswith("#/")):
                raise refusal(f"{path}.$ref", f"must point into the same schema, as #/$defs/x, not {quoted(ref)}.")
            if ref in seen:
                raise refusal(f"{path}.$ref", f"points in a circle: {quoted(ref)}.")
            seen.add(ref)
            target = self._resolve(ref, path)
            if not isinstance(target, dict) or "$ref" not in target:
                break
            ref = target["$ref"]
        if ref not in self._resolved:
            self._resolved.add(ref)
            self._push(target, f"{self._path}{ref[1:].replace('/', '.')}", depth)

    def _resolve(self, ref: str, path: str) -> object:
        if ref == "#":  # the engine does not know it
            raise refusal(f"{path}.$ref", "must point to a part of the schema, as #/$defs/x, not to all of it.")
        target: object = self._root
        for step in ref[2:].split("/"):
            if isinstance(target, dict) and step in target:
                target = target[step]
            elif isinstance(target, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(target):
                target = target[int(step)]
            else:
                raise refusal(f"{path}.$ref", f"leads nowhere: {quoted(ref)}.")
        return target


def _implied_type(schema: dict[str, Any], has_properties: bool) -> str:
    """Return the type that the keywords of a schema without one imply, as the converter does, in its order."""
    if has_properties:
        return "object"
    if "allOf" in schema:
        return "allOf"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    if {"pattern", "minLength", "maxLength"} & schema.keys() or schema.get("format") in _FORMATS:
        return "string"
    return ""


def _string_keywords(schema: dict[str, Any]) -> set[str]:
    """Return the keywords that have an effect on a string: a pattern rules out the others, a format the lengths."""
    if "pattern" in schema:
        return set() if pattern_defect(schema["pattern"]) else {"pattern"}
    if schema.get("format") in _FORMATS:
        return {"format"}
    return {"minLength", "maxLength"}


def _weaker_bounds(schema: dict[str, Any]) -> set[str]:
    pairs = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
    return {second for first, second in pairs if first in schema and second in schema}


def _check_lengths(schema: dict[str, Any], path: str) -> None:
    for key in ("$defs", "definitions"):
        if isinstance(schema.get(key), dict):
            for name in schema[key]:
                _check_name(name, f"{path}.{key}")
    if isinstance(schema.get("enum"), list) and len(schema["enum"]) > _MAX_ENUM:
        raise refusal(f"{path}.enum", f"must not have more than {_MAX_ENUM} entries.")
    pattern = schema.get("pattern")
    if pattern is not None and (not isinstance(pattern, str) or len(pattern) > _MAX_REF):
        raise refusal(f"{path}.pattern", f"must be a string of at most {_MAX_REF} characters.")


def _check_numbers(schema: dict[str, Any], path: str) -> list[str]:
    """Check numbers, and return keywords that only ask for too much to be of use. Raises GatewayError.

    A string of at most 100,000 characters is no rarity in a tool's schema, and no grammar can count so far.
    """
    useless = []
    for key in _COUNTS:
        if key in schema:
            count = schema[key]
            if type(count) is not int or count < 0:
                raise refusal(f"{path}.{key}", f"must be a whole number, not {quoted(count)}.")
            if count > _MAX_COUNT:
                if key.startswith("min"):
                    raise refusal(f"{path}.{key}", f"must not be more than {_MAX_COUNT}.")
                useless.append(key)
    for key in _BOUNDS & schema.keys():
        bound = schema[key]
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise refusal(f"{path}.{key}", f"must be a number, not {quoted(bound)}.")
        if abs(bound) >= _MAX_BOUND:
            useless.append(key)
    return useless


def _check_name(name: str, path: str) -> None:
    if len(name) > _MAX_NAME:
        raise refusal(path, f"has a name of more than {_MAX_NAME} characters.")
