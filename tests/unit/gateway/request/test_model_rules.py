"""The operator's rules: defaults, bounds and what is left out, in every dialect, and for who wants to get around."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.fields import TABLES
from llama_gguf.gateway.request.model_rules import (
    ModelRules,
    apply_rules,
    apply_to_form,
    joined,
    rules_of_key,
)
from support.gateway_box import key_record

BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9000},
    "infill": {"input_prefix": "hi"},
}


def ruled(group: str, body: dict[str, Any], **rules: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    content, changes = json.loads(json.dumps(body)), Changes()
    apply_rules(group, content, ModelRules(**rules), changes)
    assert changes.changed == bool(changes.ruled)
    return content, changes.ruled


def test_defaults_are_what_a_client_does_not_say() -> None:
    rules = {"temperature": 0.7, "chat_template_kwargs": {"enable_thinking": False, "x": 1}}
    content, told = ruled("chat", BODIES["chat"], defaults=rules)
    assert content == BODIES["chat"] | rules
    assert told == ("temperature", "chat_template_kwargs")
    own = BODIES["chat"] | {"temperature": 0, "chat_template_kwargs": {"enable_thinking": True}}
    content, told = ruled("chat", own, defaults=rules)
    assert content["temperature"] == 0
    assert content["chat_template_kwargs"] == {"enable_thinking": True, "x": 1}
    assert told == ("chat_template_kwargs",)


def test_null_counts_as_not_said() -> None:
    content, _ = ruled("chat", BODIES["chat"] | {"temperature": None}, defaults={"temperature": 0.7})
    assert content["temperature"] == 0.7


@pytest.mark.parametrize("group", BODIES)
def test_a_default_is_set_only_where_the_route_knows_it(group: str) -> None:
    content, _ = ruled(group, BODIES[group], defaults={"min_p": 0.1, "nonsense": 1, "model": "other", "messages": []})
    assert ("min_p" in content) == ("min_p" in TABLES[group])
    assert "nonsense" not in content
    assert "model" not in content
    assert content.get("messages") == BODIES[group].get("messages")


@pytest.mark.parametrize("group", BODIES)
def test_every_spelling_of_the_length_is_bounded(group: str) -> None:
    names = ("max_tokens", "max_completion_tokens", "n_predict", "max_output_tokens")
    known = [name for name in names if name in TABLES[group]]
    content, told = ruled(group, BODIES[group], max_output_tokens=100)
    assert [content[name] for name in known if name in content] == [100]  # also where nobody asked for a length
    assert told
    for name in known:
        for asked in (101, 10**9, -1, -2):
            content, told = ruled(group, BODIES[group] | {name: asked}, max_output_tokens=100)
            assert content[name] == 100
            assert name in told
        content, told = ruled(group, BODIES[group] | {"max_tokens": 100, name: 100}, max_output_tokens=100)
        assert told == ()
        content, told = ruled(group, BODIES[group] | {"max_tokens": 7, name: 7}, max_output_tokens=100)
        assert content[name] == 7
    both = BODIES[group] | dict.fromkeys(known, 500)
    content, _ = ruled(group, both, max_output_tokens=100)
    assert {content[name] for name in known} == {100}


def test_a_wrong_type_is_left_for_the_check_that_follows() -> None:
    for wrong in ("many", 1.5, [1], True):
        content, _ = ruled("chat", BODIES["chat"] | {"max_tokens": wrong}, max_output_tokens=100)
        assert content["max_tokens"] == wrong


@pytest.mark.parametrize("group", ["chat", "responses"])
def test_reasoning_is_bounded(group: str) -> None:
    content, told = ruled(group, BODIES[group], max_reasoning_tokens=50)
    assert content["thinking_budget_tokens"] == 50
    assert told == ("thinking_budget_tokens",)
    content, _ = ruled(group, BODIES[group] | {"reasoning_budget_tokens": -1}, max_reasoning_tokens=0)
    assert content["reasoning_budget_tokens"] == 0
    assert "thinking_budget_tokens" not in content


@pytest.mark.parametrize(
    ("thinking", "maximum", "becomes"),
    [
        (None, 50, {"type": "enabled", "budget_tokens": 50}),
        ({"type": "enabled", "budget_tokens": 9000}, 50, {"type": "enabled", "budget_tokens": 50}),
        ({"type": "enabled", "budget_tokens": 9000}, 0, {"type": "enabled", "budget_tokens": 0}),
        ({"type": "enabled", "budget_tokens": 10}, 50, {"type": "enabled", "budget_tokens": 10}),
        # llama-server gives only `enabled` a budget: of none, or what is no number, 10000 tokens
        ({"type": "enabled"}, 50, {"type": "enabled", "budget_tokens": 50}),
        ({"type": "adaptive"}, 50, {"type": "enabled", "budget_tokens": 50}),
        ({}, 50, {"type": "enabled", "budget_tokens": 50}),
        ({"type": "disabled", "budget_tokens": 9000}, 50, {"type": "enabled", "budget_tokens": 0}),
        *(
            ({"type": "enabled", "budget_tokens": wrong}, 50, {"type": "enabled", "budget_tokens": 50})
            for wrong in (-1, -(10**30), 10**30, "10", 10.5, True, None, [1], {"x": 1})
        ),
    ],
)
def test_reasoning_of_anthropics_clients_is_bounded(thinking: object, maximum: int, becomes: object) -> None:
    body = BODIES["messages"] | ({} if thinking is None else {"thinking": thinking})
    content, _ = ruled("messages", body, max_reasoning_tokens=maximum)
    assert content["thinking"] == becomes
    off = content["thinking"]["budget_tokens"] == 0
    assert content.get("chat_template_kwargs") == ({"enable_thinking": False} if off else None)


def test_a_template_that_thinks_all_the_same_is_bounded_too() -> None:
    """A client's own wish for its template stays; the budget does not follow from it."""
    body = BODIES["messages"] | {"thinking": {"type": "disabled"}, "chat_template_kwargs": {"enable_thinking": True}}
    content, _ = ruled("messages", body, max_reasoning_tokens=50)
    assert content["thinking"] == {"type": "enabled", "budget_tokens": 0}
    assert content["chat_template_kwargs"] == {"enable_thinking": True}
    values: tuple[object, ...] = ([], "off", 1)
    for wrong in values:
        assert (
            ruled("messages", BODIES["messages"] | {"thinking": wrong}, max_reasoning_tokens=5)[0]["thinking"] == wrong
        )


def test_a_default_does_not_contradict_what_a_client_says_in_other_words() -> None:
    content, told = ruled("chat", BODIES["chat"] | {"max_completion_tokens": 80}, defaults={"max_tokens": 50})
    assert ("max_tokens" in content, told) == (False, ())
    form = {"response_format": {"type": "json_object"}}
    content, told = ruled("chat", BODIES["chat"] | form, defaults={"grammar": 'root ::= "x"'})
    assert ("grammar" in content, told) == (False, ())


def test_the_rules_of_a_key() -> None:
    assert rules_of_key(key_record("a", "k" * 20)) is None
    whole = key_record(
        "a", "k" * 20, max_output_tokens=5, max_reasoning_tokens=0, strip=("seed",), defaults={"min_p": 0.1}
    )
    assert rules_of_key(whole) == ModelRules({"min_p": 0.1}, 5, 0, frozenset({"seed"}))
    assert rules_of_key(key_record("a", "k" * 20, max_reasoning_tokens=0)) == ModelRules(max_reasoning_tokens=0)


@pytest.mark.parametrize("given", [None, "11", "0099", "999999999"])
def test_an_upload_is_bounded(given: str | None) -> None:
    fields = {"language": "en"} | ({} if given is None else {"max_tokens": given})
    assert apply_to_form(fields, ModelRules(max_output_tokens=10)) == ("max_tokens",)
    assert fields == {"language": "en", "max_tokens": "10"}


def test_what_an_upload_may_have_stays() -> None:
    fields = {"language": "en", "max_tokens": "3", "stream": "true"}
    assert apply_to_form(fields, ModelRules(max_output_tokens=10, strip=frozenset({"stream", "seed"}))) == ()
    assert apply_to_form(fields, ModelRules(strip=frozenset({"language"}))) == ("language",)
    assert fields == {"max_tokens": "3", "stream": "true"}


def test_what_is_stripped_is_gone_but_not_the_request_itself() -> None:
    body = BODIES["chat"] | {"model": "m", "logprobs": True, "top_logprobs": 5, "stream": True}
    content, told = ruled("chat", body, strip=frozenset({"logprobs", "top_logprobs", "messages", "model", "stream"}))
    assert content == BODIES["chat"] | {"model": "m", "stream": True}
    assert sorted(told) == ["logprobs", "top_logprobs"]


def test_adapters_of_a_variant() -> None:
    content, _ = ruled("chat", BODIES["chat"], lora=(0.5, 0))
    assert content["lora"] == [{"id": 0, "scale": 0.5}, {"id": 1, "scale": 0}]
    assert "lora" not in ruled("messages", BODIES["messages"], lora=(0.5,))[0]


def test_rules_join_and_the_lower_bound_holds() -> None:
    above = ModelRules({"a": 1}, 10, None, frozenset({"x"}), (1.0,))
    below = ModelRules({"a": 2, "b": 3}, 5, 7, frozenset({"y"}))
    assert joined(None, None) is None
    assert joined(above, None) is joined(None, above) is above
    assert joined(above, below) == ModelRules({"a": 1, "b": 3}, 5, 7, frozenset({"x", "y"}), (1.0,))
    assert ModelRules().empty
    assert not above.empty


def test_no_rule_changes_nothing() -> None:
    for group, body in BODIES.items():
        assert ruled(group, body) == (body, ())
