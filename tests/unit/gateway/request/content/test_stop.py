"""Stop sequences that stop nothing are left out."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.content.stop import drop_blank_stops

from ..conftest import Refused


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("END", "END"),
        (["a", "b"], ["a", "b"]),
        (" ", " "),  # a blank is a stop sequence, an empty text is none
        ("\n", "\n"),
        ("", None),
        (None, None),
        ([], None),
        (["", None], None),
        (["", "a", "a", None], ["a"]),
    ],
)
def test_blank_ones_are_left_out(given: object, left: object) -> None:
    body: dict[str, Any] = {"stop": given}
    changes = Changes()
    drop_blank_stops(body, "stop", changes)
    assert body.get("stop") == left
    assert changes.changed is (given != left or "stop" not in body)


@pytest.mark.parametrize(("given", "path"), [(5, "stop"), ({}, "stop"), (["a", 5], "stop[1]"), ([["a"]], "stop[0]")])
def test_what_is_no_text_is_refused(given: object, path: str, refused: Refused) -> None:
    assert refused(lambda: drop_blank_stops({"stop": given}, "stop", Changes())) == path
