"""What the gateway says about schemas and patterns is what the real engine does with them."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.constraints.patterns import pattern_defect
from llama_gguf.gateway.request.constraints.schemas import SchemaLimits, check_schema
from support.gateway_box import ENGINE_KEY, Box, make_box, stopping
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

PATTERNS = [
    *("^a$", "^[a-z]+$", "^(?:a|b)*$", "^\\($", "^[0-9]{2,5}$", "^a{2,}$", "^(a(b)?)$", "^.$", "^a|b$", "^[^a]$"),
    *(
        "a",
        "^a",
        "^\\d+$",
        "^\\w$",
        "^a\\b$",
        "^(?=a)b$",
        "^(?i)a$",
        "^[\\d]$",
        "^a$b$",
        "^]$",
        "^}$",
        "^a\\-b$",
        "^\\/$",
    ),
    *(
        "^(a$",
        "^a)$",
        "^*$",
        "^[a$",
        "^a{$",
        "^a{1,2,3}$",
        "^\\x41$",
        "^\\u0041$",
        "^[\\x41-\\x5a]$",
        "^\\.$",
        "^[\\.]$",
    ),
    *("^a{x}$", "^a{1,}b+$", "^(|a)$", "^a||b$", "^ü$", '^"$', "^\\n$", "^\\\\$"),
]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path) -> Iterator[Box]:
    root = tmp_path_factory.mktemp("engine")
    made = make_box(root / "box", {})
    with stopping(made.start_engine(engine_binary, write_tiny_model(root / "tiny.gguf"), "--parallel", "1")):
        yield made


def convert(box: Box, schema: object) -> tuple[int, str]:
    """Have the engine make a grammar of a schema; return its status, and what it has logged meanwhile."""
    log = box.root / "engine.out"
    before = log.stat().st_size
    body = json.dumps({"prompt": "a", "n_predict": 1, "json_schema": schema}).encode()
    head = (
        f"POST /completion HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer {ENGINE_KEY}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(box.socket))
        sock.sendall(head.encode() + body)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    with log.open("rb") as file:
        file.seek(before, os.SEEK_SET)
        logged = file.read().decode(errors="replace")
    return int(answer[9:12]), logged


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_enforced_or_not(box: Box, pattern: str) -> None:
    status, logged = convert(box, {"type": "string", "pattern": pattern})
    enforced = status == 200 and "conversion was incomplete" not in logged
    assert enforced is (pattern_defect(pattern) == ""), (status, logged, pattern_defect(pattern))


def obj(**properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": [*properties]}


HOSTILE: dict[str, Any] = {
    "a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "a wide circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "a long string": obj(a={"type": "string", "maxLength": 100_000}),
    "many items": obj(a={"type": "array", "items": obj(b={"type": "array", "maxItems": 1999}), "maxItems": 1999}),
    "a large number": obj(a={"type": "integer", "minimum": -(2**63), "maximum": 2**63}),
    "a tree": {
        "$ref": "#/$defs/node",
        "$defs": {"node": obj(next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})},
    },
    "a strange name": obj(**{"é" * 250: {"type": "string"}}),
    "an escaped reference": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {}}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_passes_is_no_harm_to_the_engine(box: Box, name: str) -> None:
    schema = json.loads(json.dumps(HOSTILE[name]))
    try:
        check_schema(schema, "s", SchemaLimits(nodes=2000, depth=32), Changes(), strict=False)
    except GatewayError as error:
        assert re.match(r"s(\.|$)", str(error.param))  # noqa: PT017 - some are refused, some are harmless
        return
    status, logged = convert(box, schema)
    assert status in (200, 400), logged
    assert convert(box, obj(a={"type": "string"}))[0] == 200
