"""Token ids in place of text to embed."""

from __future__ import annotations

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.content.token_ids import check_token_ids

from ..conftest import Refused


@pytest.mark.parametrize("value", [[1, 2], [[1, 2], [3]]])
def test_they_are_told_or_refused(value: object, refused: Refused) -> None:
    changes = Changes()
    check_token_ids({"input": value}, "input", "warn", changes)
    assert len(changes.warnings) == 1
    assert not changes.changed
    assert refused(lambda: check_token_ids({"input": value}, "input", "refuse", Changes())) == "input"


@pytest.mark.parametrize("value", ["text", ["a", "b"], [], [[]], None])
def test_text_is_neither(value: object) -> None:
    changes = Changes()
    check_token_ids({"input": value}, "input", "refuse", changes)
    assert not changes.warnings
