"""What of a JSON schema is enforced, what only looks so, and what must not reach the engine."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.constraints.schemas import SchemaLimits, check_schema

from ..conftest import Refused

LIMITS = SchemaLimits(nodes=1000, depth=32)
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    },
}


def obj(**properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": [*properties]}


ENFORCED = [
    obj(a={"type": "string"}, b={"type": ["integer", "null"]}),
    obj(a={"type": "string", "description": "x", "enum": ["a", "b"]}),
    obj(a={"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 5}),
    obj(a={"type": "integer", "minimum": 1, "exclusiveMaximum": 9}),
    obj(a={"type": "string", "format": "date-time"}, b={"type": "string", "pattern": "^[a-z]+$"}),
    obj(a={"type": "string", "minLength": 2, "maxLength": 5}),
    obj(a={"const": 5}, b={}, c={"anyOf": [{"type": "string"}, {"type": "null"}]}),
    {"type": "array", "prefixItems": [{"type": "string"}]},
    {"allOf": [obj(a={"type": "string"}), {"$ref": "#/$defs/x"}], "$defs": {"x": obj(b={"type": "string"})}},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t", **obj()},
    TREE,
]
IGNORED = [
    (obj(a={"type": "number", "minimum": 1}), "s.properties.a.minimum"),
    (obj(a={"type": "number", "multipleOf": 2}), "s.properties.a.multipleOf"),
    (obj(a={"type": "integer", "multipleOf": 2}), "s.properties.a.multipleOf"),
    (obj(a={"type": "integer", "minimum": 1, "exclusiveMinimum": 5}), "s.properties.a.exclusiveMinimum"),
    (obj(a={"type": "string", "format": "email"}), "s.properties.a.format"),
    (obj(a={"type": "string", "pattern": "\\d+"}), "s.properties.a.pattern"),
    (obj(a={"type": "string", "pattern": "^a$", "maxLength": 5}), "s.properties.a.maxLength"),
    (obj(a={"type": "string", "maxLength": 100_000}), "s.properties.a.maxLength"),
    (obj(a={"type": "array", "uniqueItems": True}), "s.properties.a.uniqueItems"),
    (obj(a={"type": "array", "contains": {}}), "s.properties.a.contains"),
    ({"type": "object", "patternProperties": {"^a": {}}}, "s.patternProperties"),
    ({"type": "object", "minProperties": 2}, "s.minProperties"),
    ({**obj(a={}), "required": ["a", "b"]}, "s.required"),
    ({**obj(a={}), "not": {}}, "s.not"),
    ({**obj(a={}), "if": {}, "then": {}}, "s.if"),
    ({**obj(a={}), "dependentRequired": {}}, "s.dependentRequired"),
    ({"anyOf": [{"type": "string"}], "properties": {}}, "s.properties"),
    ({**TREE, "required": ["x"]}, "s.required"),
]
REFUSED = [
    (5, "s"),
    ({"type": "object", "properties": {"a": 5}}, "s.properties.a"),
    ({"type": "object", "properties": []}, "s.properties"),
    ({"anyOf": {}}, "s.anyOf"),
    ({"$ref": "https://x/y"}, "s.$ref"),
    ({"$ref": "#"}, "s.$ref"),
    ({"$ref": 5}, "s.$ref"),
    ({"$ref": "#/nowhere"}, "s.$ref"),
    ({"$ref": "#/$defs/" + "é" * 200_000}, "s.$ref"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "s.$ref"),
    (obj(a={"type": "string", "minLength": 100_000}), "s.properties.a.minLength"),
    (obj(a={"type": "array", "minItems": -1}), "s.properties.a.minItems"),
    (obj(a={"type": "array", "maxItems": 1.5}), "s.properties.a.maxItems"),
    (obj(a={"type": "array", "maxItems": True}), "s.properties.a.maxItems"),
    (obj(a={"type": "integer", "minimum": "x"}), "s.properties.a.minimum"),
    (obj(a={"type": "string", "pattern": 5}), "s.properties.a.pattern"),
    (obj(a={"type": "string", "pattern": "^" + "a" * 5000 + "$"}), "s.properties.a.pattern"),
    (obj(**{"é" * 100_000: {}}), "s.properties"),
    ({"$defs": {"é" * 100_000: {}}}, "s.$defs"),
    ({"anyOf": [{}] * 2000}, "s"),
]


def check(schema: object, *, strict: bool) -> Changes:
    changes = Changes()
    check_schema(copy.deepcopy(schema), "s", LIMITS, changes, strict=strict)
    return changes


@pytest.mark.parametrize("schema", ENFORCED)
def test_a_strict_schema_that_is_enforced(schema: dict[str, Any]) -> None:
    changes = check(schema, strict=True)
    assert (changes.warnings, changes.changed) == ([], False)


@pytest.mark.parametrize(("schema", "path"), IGNORED)
def test_what_is_ignored_is_refused_if_strict_and_told_if_not(schema: object, path: str, refused: Refused) -> None:
    assert refused(lambda: check(schema, strict=True)) == path
    assert f"{path} is not enforced" in check(schema, strict=False).warnings


@pytest.mark.parametrize(("schema", "path"), REFUSED)
@pytest.mark.parametrize("strict", [False, True])
def test_what_must_not_reach_the_engine(schema: object, path: str, strict: bool, refused: Refused) -> None:
    assert refused(lambda: check(schema, strict=strict)) == path


def test_a_count_that_no_grammar_can_count_is_left_out() -> None:
    schema = obj(a={"type": "string", "maxLength": 100_000})
    changes = Changes()
    check_schema(schema, "s", LIMITS, changes, strict=False)
    assert schema["properties"]["a"] == {"type": "string"}
    assert changes.changed


def test_depth_is_bounded_without_recursion(refused: Refused) -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"type": "array", "items": schema}

    def deep() -> None:
        check_schema(schema, "s", SchemaLimits(nodes=10**6, depth=32), Changes(), strict=False)

    assert refused(deep) == "s"
    while "items" in schema:  # or else its end would recurse
        schema = schema.pop("items")


def test_what_takes_the_engine_seconds_is_bounded(refused: Refused) -> None:
    """Rules of optional properties take the cube of their number, and all values of an enum are compared."""
    wide = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(600)}}
    limits = SchemaLimits(nodes=10**6, depth=32)
    assert refused(lambda: check_schema(wide, "s", limits, Changes(), strict=False)) == "s.properties"
    assert refused(lambda: check_schema({"enum": [*range(5000)]}, "s", limits, Changes(), strict=False)) == "s.enum"
    check_schema({"enum": [*range(1000)]}, "s", limits, Changes(), strict=True)


def test_a_property_that_may_be_anything_is_written_as_the_engine_knows_it() -> None:
    """`true` is a JSON schema, and tools of MCP servers have it; llama-server would refuse the whole request."""
    schema = obj(a=True)
    changes = Changes()
    check_schema(schema, "s", LIMITS, changes, strict=True)
    assert schema["properties"] == {"a": {}}
    assert changes.changed
