"""A field that would make another answer is refused with what to use instead; an empty one asks for nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from llama_gguf.gateway.request.fields import TABLES
from llama_gguf.gateway.request.unsupported import UNSUPPORTED, check_unsupported

from .conftest import Refused

SCHEMA: dict[str, Any] = {"type": "json_schema", "schema": {"type": "object"}}
NAMED = [(group, path) for group, table in UNSUPPORTED.items() for path in table]


@pytest.mark.parametrize(("group", "path"), NAMED)
def test_each_of_them_is_refused_by_its_path(group: str, path: str, refused: Refused) -> None:
    name, _, part = path.partition(".")
    values: list[object] = [SCHEMA, "x", ["x"]]
    for value in values:
        assert refused(partial(check_unsupported, group, name, {part: value} if part else value)) == path


@pytest.mark.parametrize(("group", "path"), NAMED)
def test_what_asks_for_nothing_is_left_out_like_others(group: str, path: str) -> None:
    name, _, part = path.partition(".")
    values: list[object] = [None, [], {}, "", False]
    for value in values:
        check_unsupported(group, name, {part: value} if part else value)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("messages", "output_config", {"effort": "low"}),
        ("messages", "output_config", {"format": None, "effort": "low"}),
        ("messages", "output_config", "format"),
        ("messages", "context_management", {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}),
        ("messages", "thread", {"type": "create"}),
        ("messages", "cache_control", {"type": "ephemeral"}),
        ("chat", "output_config", {"format": SCHEMA}),
        ("embeddings", "guided_json", SCHEMA),
    ],
)
def test_what_changes_no_answer_is_no_matter(group: str, name: str, value: object) -> None:
    check_unsupported(group, name, value)


def test_no_table_has_a_field_that_another_refuses() -> None:
    both = [(group, path) for group, path in NAMED if path.partition(".")[0] in TABLES[group]]
    assert not both, "these are known, so that they are never refused"
