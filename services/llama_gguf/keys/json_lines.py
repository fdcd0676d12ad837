"""The position of a value in a JSON text: line numbers for errors in a document that is valid JSON but not a keys file.

Python's parser does not return positions. These functions parse the text again, only after an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def line_of(text: str, place: Sequence[int | str]) -> int:
    """Return the line (from 1) of the value at `place` in valid JSON; of the nearest enclosing one if it is missing."""
    at = _skip(text, 0)
    for part in place:
        found = next((start for name, start in _children(text, at) if name == part), None)
        if found is None:
            break
        at = found
    return text.count("\n", 0, at) + 1


def line_of_repeated_name(text: str) -> int:
    """Return the line (from 1) of the first name that its object already has, in valid JSON."""
    pending = [_skip(text, 0)]
    while pending:
        at = pending.pop()
        names: set[int | str] = set()
        inner = []
        for name, start in _children(text, at):
            if name in names:
                return text.count("\n", 0, start) + 1
            names.add(name)
            inner.append(start)
        pending.extend(reversed(inner))
    return 1


def _children(text: str, at: int) -> Iterator[tuple[int | str, int]]:
    """Yield name (or index) and start of each value in the object or array that begins at `at`."""
    opening = text[at]
    if opening not in "{[":
        return
    at = _skip(text, at + 1)
    index = 0
    while text[at] not in "}]":
        name: int | str = index
        if opening == "{":
            name, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # the colon
        yield name, at
        _, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
        index += 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
