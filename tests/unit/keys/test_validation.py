"""The rules of each field of a record."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest

from llama_gguf.errors import KeysError
from llama_gguf.keys import validation
from llama_gguf.keys.record import KeyRecord, PreviousSecret, RotationMark
from llama_gguf.keys.validation import check
from support.keys_made import ALICE, NOW, record


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_good_record_passes_unchanged() -> None:
    good = record(
        models=("a",),
        requests_per_minute=5,
        max_reasoning_tokens=0,
        strip=("seed",),
        defaults={"a": {"b": [1, None, "x"]}},
        expires=NOW,
        note="né",
        previous=(PreviousSecret("0" * 64, NOW),),
    )
    assert check(good) == good


def test_times_become_utc() -> None:
    moment = dt.datetime(2030, 1, 1, 1, 0, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    checked = check(record(expires=moment))
    assert checked.expires == moment
    assert checked.expires is not None
    assert checked.expires.tzinfo is dt.UTC


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"id": ""}, "id: has the wrong form"),
        ({"id": "a b"}, "id: has the wrong form"),
        ({"id": "a\n"}, "id: has the wrong form"),
        ({"id": "é"}, "id: has the wrong form"),
        ({"id": "a" * 65}, "id: has the wrong form"),
        ({"digest": ALICE}, "digest: has the wrong form"),
        ({"digest": "A" * 64}, "digest: has the wrong form"),
        ({"digest": None}, "digest: must be text"),
        ({"prefix": "sk-123456"}, "prefix: has the wrong form"),
        ({"scopes": frozenset()}, "scopes: must not be empty"),
        ({"scopes": frozenset({"root"})}, "scopes.0: should be 'inference', 'metrics' or 'admin'"),
        ({"models": ()}, "models: must not be empty"),
        ({"models": ("a\x1b[2J",)}, "models.0: must not contain control characters"),
        ({"requests_per_minute": 0}, "requests_per_minute: should be greater than or equal to 1"),
        ({"tokens_per_minute": 1_000_000_001}, "tokens_per_minute: should be less than or equal to 1000000000"),
        ({"concurrency": True}, "concurrency: must be a whole number"),
        ({"monthly_tokens": 1.5}, "monthly_tokens: must be a whole number"),
        ({"max_output_tokens": 0}, "max_output_tokens: should be greater than or equal to 1"),
        ({"max_output_tokens": "9"}, "max_output_tokens: must be a whole number"),
        ({"max_output_tokens": True}, "max_output_tokens: must be a whole number"),
        ({"max_reasoning_tokens": -1}, "max_reasoning_tokens: should be greater than or equal to 0"),
        ({"max_reasoning_tokens": 10**30}, "max_reasoning_tokens: should be less than or equal to 16777216"),
        ({"strip": ("a b",)}, "strip.0: has the wrong form"),
        ({"strip": ("x",) * 65}, "strip: has too many entries"),
        ({"defaults": ["temperature"]}, "defaults: must be an object"),
        ({"defaults": {}}, "defaults: must not be empty"),
        ({"defaults": {"a": float("nan")}}, "defaults: must be values of JSON, numbers up to 2^53"),
        ({"defaults": {"a": {1}}}, "defaults: must be values of JSON, numbers up to 2^53"),
        ({"defaults": {"a": -(2**53)}}, "defaults: must be values of JSON, numbers up to 2^53"),
        ({"defaults": {"a": {1: 2}}}, "defaults: must be values of JSON, numbers up to 2^53"),
        ({"defaults": {"a": "x" * 4096}}, "defaults: must not have more than 4096 characters"),
        ({"defaults": {"a": nested(17)}}, "defaults: must not have more than 16 levels"),
        ({"defaults": {"a": nested(5000)}}, "defaults: must not have more than 16 levels"),
        ({"priority": "urgent"}, "priority: should be 'high', 'normal' or 'low'"),
        ({"expires": dt.datetime(2030, 1, 1)}, "expires: needs a time zone, for example 2030-01-31T12:00:00Z"),  # noqa: DTZ001
        ({"note": "a\nb"}, "note: must not contain control characters"),
        ({"note": "x" * 501}, "note: should have at most 500 characters"),
        ({"previous": (PreviousSecret("x", NOW),)}, "previous.0.digest: has the wrong form"),
    ],
)
def test_a_wrong_field_is_named_and_not_quoted(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(KeysError) as caught:
        check(replace(record(), **wrong))
    assert caught.value.message == message
    assert caught.value.code == "key-field"
    assert ALICE not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "checked"),
    [
        (KeyRecord, validation._Record),
        (PreviousSecret, validation._Previous),
        (RotationMark, validation._Rotation),
        (validation._Document, validation._CheckedDocument),
    ],
)
def test_the_rules_let_through_what_the_annotations_say(kind: type, checked: object) -> None:
    """The types stand in `record` and the rules here: neither may have a field, or a type, that the other has not."""
    rules = get_args(checked)[1].rules
    widened = {name: int if name == "version" else rule for name, rule in rules.items()}  # the one rule that is a value
    assert get_type_hints(type("Ruled", (), {"__annotations__": widened})) == get_type_hints(kind)
