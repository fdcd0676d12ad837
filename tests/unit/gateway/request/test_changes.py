"""What the client of a changed request is told."""

from __future__ import annotations

from llama_gguf.gateway.request.changes import MAX_WARNINGS, Changes


def test_each_warning_is_told_once_and_their_number_is_bounded() -> None:
    changes = Changes()
    assert not changes.changed
    for number in (1, 1, *range(2, 40)):
        changes.warn(f"field {number} is ignored")
    assert changes.warnings == [f"field {number} is ignored" for number in range(1, MAX_WARNINGS + 1)]
