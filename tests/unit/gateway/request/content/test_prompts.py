"""Prompts: how many there are, and that each is one."""

from __future__ import annotations

import pytest

from llama_gguf.gateway.request.content.media import MediaCheck, MediaRules
from llama_gguf.gateway.request.content.prompts import check_text_list, count_prompts

from ..conftest import Refused


def count(value: object) -> int:
    return count_prompts(value, "p", MediaCheck(MediaRules(supported=False, allow_remote=False, max_items=4)), 5)


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("a", 1),
        ("", 1),
        ([1, 2, 3], 1),
        ([1, "a", 2], 1),
        (["a"], 1),
        (["a", "b"], 2),
        ([[1, 2], [3]], 2),
        ([[1, "a"], "b", {"prompt_string": "c"}], 3),
        ({"prompt_string": "c", "multimodal_data": None}, 1),
        ([1] * 1000, 1),
    ],
)
def test_counted(value: object, prompts: int) -> None:
    assert count(value) == prompts


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (5, "p"),
        (True, "p"),
        ([], "p"),
        (["a"] * 6, "p"),
        ([[]], "p[0]"),
        ([None], "p[0]"),
        ([True], "p[0]"),
        ([1.5], "p[0]"),
        ([1, None], "p[1]"),
        ([1, True], "p[1]"),
        ([1, -1], "p[1]"),
        ([1, 2**31], "p[1]"),
        ([1, [2]], "p[1]"),
        ([["a", 1.5]], "p[0][1]"),
        ({}, "p.prompt_string"),
        ({"prompt_string": 5}, "p.prompt_string"),
        (["a", {"x": 1}], "p[1].prompt_string"),
        ({"prompt_string": "a", "multimodal_data": "x"}, "p.multimodal_data"),
        ({"prompt_string": "a", "multimodal_data": ["aGk="]}, "p.multimodal_data[0]"),
    ],
)
def test_refused(value: object, path: str, refused: Refused) -> None:
    assert refused(lambda: count(value)) == path


def test_texts(refused: Refused) -> None:
    assert check_text_list(["a", "b"], "d", 5) == 2
    for value, path in ((None, "d"), ("a", "d"), ([], "d"), (["a"] * 6, "d"), (["a", 5], "d[1]")):
        assert refused(lambda: check_text_list(value, "d", 5)) == path  # noqa: B023 - called at once
