"""One field: types, bounds, lengths, choices."""

from __future__ import annotations

import pytest

from llama_gguf.gateway.request.field import Field, boolean, integer, listed, mapping, number, text, texts

from .conftest import Refused


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (boolean(), [True, False], [1, 0, "true", [], {}]),
        (integer(0, 5), [0, 5], [-1, 6, 2.0, True, "3", 10**30]),
        (number(0, 1), [0, 1, 0.5], [-0.1, 1.1, True, "0.5", 10**400]),
        (text(3), ["", "abc"], ["abcd", 5, ["a"], None.__class__]),
        (text(9, "a", "b"), ["a"], ["c", "", 5]),
        (texts(3), ["abc", ["a", "b"], []], ["abcd", ["abcd"], ["a"] * 4, [5], {}]),
        (listed(2, int), [[], [1, 2]], [[1, 2, 3], ["a"], [True], "x", {}]),
        (mapping(1), [{}, {"a": 1}], [{"a": 1, "b": 2}, [], "x"]),
        (Field("anything"), [5, "x", [], {}], []),
    ],
)
def test_what_is_taken(field: Field, good: list[object], bad: list[object], refused: Refused) -> None:
    for value in good:
        field.check("f", value)
    for value in bad:
        assert refused(lambda: field.check("f", value)).startswith("f")  # noqa: B023 - called at once
