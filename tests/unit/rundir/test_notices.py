"""Warnings in a record of the run directory: written by one program, read by others, who believe nothing."""

from __future__ import annotations

import json
import re

import pytest

from llama_gguf.rundir.notices import NOTICE_CODES, Notice, notices_as_data, read_notices
from llama_gguf.settings.messages.codes import PROBLEM_CODES


def test_there_and_back() -> None:
    notices = (Notice("a", "it is so", "do this"), Notice("b", "and so"))
    assert read_notices(json.loads(json.dumps(notices_as_data(notices)))) == notices


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        {"code": "a", "message": "m"},
        [None, 1, "x", []],
        [{}],
        [{"code": "a"}],
        [{"message": "m"}],
        [{"code": 1, "message": "m"}],
        [{"code": "a", "message": ["m"]}],
        [{"code": "a", "message": "m", "hint": 5}],
    ],
)
def test_what_has_another_form_is_left_out(value: object) -> None:
    assert read_notices(value) == ()
    if isinstance(value, list):
        assert read_notices([*value, {"code": "a", "message": "m", "more": 1}]) == (Notice("a", "m"),)


def test_a_flood_is_cut() -> None:
    assert len(read_notices([{"code": "a", "message": "m"}] * 10_000)) == 32


def test_codes_are_well_formed_and_their_own() -> None:
    for code, meaning in NOTICE_CODES.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
        assert meaning.endswith(".")
    assert not set(NOTICE_CODES) & set(PROBLEM_CODES)
