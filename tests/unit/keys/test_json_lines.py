"""Line numbers in JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.keys.json_lines import line_of, line_of_repeated_name
from support.keys_made import patient

TEXT = """\

{ "a" : [1,
    {"b": "x,}]",
     "c": [ ] }
  ],
  "d": {}
}
"""


def test_lines_of_values() -> None:
    places: dict[tuple[str | int, ...], int] = {
        (): 2,
        ("a",): 2,
        ("a", 0): 2,
        ("a", 1): 3,
        ("a", 1, "b"): 3,
        ("a", 1, "c"): 4,
        ("d",): 6,
    }
    assert {place: line_of(TEXT, place) for place in places} == places


def test_a_missing_value_is_at_what_would_hold_it() -> None:
    assert line_of(TEXT, ("a", 1, "absent")) == 3
    assert line_of(TEXT, ("a", 7)) == 2
    assert line_of(TEXT, ("d", "x", "y")) == 6


def test_the_first_repeated_name_is_found() -> None:
    assert line_of_repeated_name('{"a": 1,\n "b": [{"x": 1,\n "y": 2,\n "x": 3}],\n "b": 2}') == 5
    assert line_of_repeated_name('{"a": 1,\n "b": [{"x": 1,\n "y": 2,\n "x": 3}]}') == 4
    assert line_of_repeated_name(TEXT) == 1  # none


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


@patient
@given(_json)
def test_every_value_of_a_printed_document_is_found(document: object) -> None:
    """With one value a line, the line of a value is the one that shows it."""
    text = json.dumps(document, indent=1)
    lines = text.split("\n")

    def visit(value: object, place: tuple[str | int, ...]) -> None:
        shown = lines[line_of(text, place) - 1]
        inner: list[tuple[str | int, object]] = []
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, list):
            inner = list(enumerate(value))
        else:
            assert json.dumps(value) in shown
        if place and isinstance(place[-1], str):
            assert shown.lstrip().startswith(json.dumps(place[-1]) + ":")
        for name, item in inner:
            visit(item, (*place, name))

    visit(document, ())
