"""The longest draft: as set, else as llama-server has it."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.settings.checks.draft_tokens import longest_draft, verified_at_once
from llama_gguf.settings.sections.engine import Engine
from llama_gguf.settings.sections.settings import parse


def engine(slots: int = 4, **speculative: Any) -> Engine:
    return parse({"engine": {"slots": slots, "speculative": speculative}}).engine


@pytest.mark.parametrize(
    ("chosen", "has_draft", "tokens"),
    [
        (engine(), False, 0),
        (engine(), True, 3),
        (engine(max_tokens=9), True, 9),
        (engine(max_tokens=9), False, 0),
        (engine(types=["draft-mtp"]), False, 3),
        (engine(types=["ngram-simple"]), False, 48),
        (engine(types=["ngram-mod", "ngram-map-k"]), False, 64),
        (engine(types=["ngram-mod"], max_tokens=2), False, 2),
        (engine(types=["ngram-cache"], max_tokens=200), False, 8),
        (engine(types=["draft-simple", "ngram-cache"], max_tokens=200), True, 200),
    ],
)
def test_the_longest(chosen: Engine, tokens: int, *, has_draft: bool) -> None:
    assert longest_draft(chosen, has_draft=has_draft) == tokens
    assert verified_at_once(chosen, has_draft=has_draft) == 4 * (1 + tokens)
