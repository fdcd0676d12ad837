"""The bytes of a body to a JSON object, in bounded time. Pure.

The engine parses the same bytes again, so this parser takes nothing that the two could read differently: a name that
occurs twice, bytes that are not UTF-8, half of a surrogate pair. Parsing cannot be interrupted, so what makes it slow,
the number of lists and objects, is counted first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from llama_gguf.api_errors import GatewayError

MAX_DEPTH = 64
"""Of lists and objects in each other; a conversation needs 8, a schema within a tool some 30."""
MAX_CONTAINERS = 200_000
"""Lists and objects in one body, and names: what takes some 50 ms to parse."""

_BOM = b"\xef\xbb\xbf"
# A text, and what is none: in a JSON document a colon outside of texts follows a name. A text that never ends goes on
# to the end of the data, and nothing is given back: this also runs before the parser has seen the body, and to begin
# again at each quote of such a text would take the square of its length.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SURROGATES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_LARGE_BYTES = 65_536
_MAX_PATH_BYTES = 1_048_576  # larger ones are not searched for the place of a byte


def read_json(data: bytes, max_depth: int = MAX_DEPTH) -> tuple[dict[str, Any], bytes]:
    """Return the JSON object in `data`, and the bytes that mean it: the same unless something had to be mended.

    Raises GatewayError 400.
    """
    if len(data) > MAX_CONTAINERS:  # a small body cannot have so many
        _check_containers(data)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        value, data = _mend(data, error)
    if value.__class__ is not dict:
        raise _bad("must be a JSON object.")
    try:
        names = _count_names(value, max_depth)
    except _TooDeepError:
        raise _bad(f"is nested deeper than {max_depth} lists and objects.") from None
    # As many colons as names: none is in a text, and none belongs to a repetition. Nearly as good, and far cheaper.
    if data.count(b":") != names and _count_outside_texts(data, b":") != names:
        name = _repeated_name(data)
        raise GatewayError("bad_request", f"The name `{name}` occurs twice in one object of the body.", param=name)
    return value, data


def _bad(what: str) -> GatewayError:
    return GatewayError("bad_request", f"The request body {what}")


def _check_containers(data: bytes) -> None:
    """Refuse what takes long to parse, which cannot be interrupted. Raises GatewayError."""
    for marks, what in ((b"{[", "lists and objects"), (b":", "names")):
        cheap = sum(data.count(mark) for mark in marks)
        if cheap > MAX_CONTAINERS and _count_outside_texts(data, marks) > MAX_CONTAINERS:
            raise _bad(f"has more than {MAX_CONTAINERS} {what}.")


def _count_outside_texts(data: bytes, marks: bytes) -> int:
    """Return how often one of some characters stands outside of the texts of a JSON document.

    Of a large one text by text, so that other threads have their turn in between.
    """
    if len(data) <= _LARGE_BYTES:
        rest = _STRING.sub(b"", data)
        return sum(rest.count(mark) for mark in marks)
    total = sum(data.count(mark) for mark in marks)
    for found in _STRING.finditer(data):
        start, end = found.span()
        for mark in marks:
            total -= data.count(mark, start, end)
    return total


class _TooDeepError(Exception):
    """A value is nested deeper than is allowed."""


def _count_names(value: dict[str, Any] | list[Any], depth: int) -> int:
    """Return the number of names in all objects of a value. Raises _TooDeepError beyond `depth`."""
    if not depth:
        raise _TooDeepError
    if value.__class__ is dict:
        names = len(value)
        items: Iterable[Any] = value.values()
    else:
        names = 0
        items = value
    for item in items:
        kind_of = item.__class__
        if kind_of is not str and (kind_of is dict or kind_of is list):
            names += _count_names(item, depth - 1)
    return names


def _mend(data: bytes, error: orjson.JSONDecodeError) -> tuple[Any, bytes]:
    """Parse again what the parser has refused, without its byte order mark and with halves of surrogate pairs replaced.

    Raises GatewayError.
    """
    if data.startswith(_BOM):
        data = data[3:]
        try:
            return orjson.loads(data), data
        except orjson.JSONDecodeError as again:
            error = again
    try:
        data.decode()
    except UnicodeDecodeError as broken:
        where = _path_of(data, broken.start)
        raise GatewayError(
            "bad_request",
            f"The request body is not valid UTF-8: byte {broken.start}{f', in `{where}`' if where else ''}.",
            param=where or None,
        ) from None
    if b"\\u" in data:
        mended = _SURROGATES.sub(_replaced, data)
        if mended != data:
            try:
                return orjson.loads(mended), mended
            except orjson.JSONDecodeError as again:
                error = again
    what = "is empty." if not data.strip() else f"is not valid JSON: {error.msg} (line {error.lineno})."
    raise _bad(what) from None


def _replaced(found: re.Match[bytes]) -> bytes:
    escape = found[0]
    return b"\\ufffd" if len(escape) == 6 else escape  # a pair has 12 bytes, another escape 2


def _path_of(data: bytes, position: int) -> str:
    """Return the path of the text that holds a byte, "" if it is not known."""
    if len(data) > _MAX_PATH_BYTES:
        return ""
    marked = data[:position].decode("utf-8", "replace") + "\udcff" + data[position + 1 :].decode("utf-8", "replace")
    try:
        stack: list[tuple[str, Any]] = [("", json.loads(marked, strict=False))]
    except (ValueError, RecursionError):
        return ""
    while stack:
        path, value = stack.pop()
        if isinstance(value, str):
            if "\udcff" in value:
                return path
        elif isinstance(value, dict):
            stack += [(f"{path}.{name}" if path else name, item) for name, item in value.items() if name.isprintable()]
        elif isinstance(value, list):
            stack += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return ""


def _repeated_name(data: bytes) -> str:
    found: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in members:
            if name in seen and not found:
                found.append(name)
            seen.add(name)

    json.loads(data, object_pairs_hook=pairs, strict=False)
    name = found[0] if found else ""
    return name if name.isprintable() and len(name) <= 60 else "..."
