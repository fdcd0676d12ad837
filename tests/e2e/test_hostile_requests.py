"""Requests by which one client with an ordinary key ended, hung or robbed the box. The real appliance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.gateway.request.fields import TABLES
from support.appliance import Appliance, running

pytestmark = pytest.mark.engine

PARENTHESES = "(" * 60_000
USER = {"role": "user", "content": "hi"}
BACKTRACKING = {"type": 2, "value": "^(a+)+$"}
HOSTILE: dict[str, dict[str, Any]] = {
    "an unknown kind of trigger": {
        "prompt": "a",
        "n_predict": 1,
        "grammar": 'root ::= "a"',
        "grammar_lazy": True,
        "grammar_triggers": [{"type": 99, "value": "a"}],
    },
    "60,000 parentheses": {"prompt": "a", "n_predict": 1, "grammar": f"root ::= {PARENTHESES}"},
    "60,000 parentheses, closed": {
        "prompt": "a",
        "n_predict": 1,
        "grammar": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000,
    },
    "60,000 parentheses behind a comment": {"prompt": "a", "n_predict": 1, "grammar": f"root ::= #\r{PARENTHESES}"},
    "a literal that is written out to a gigabyte": {
        "prompt": "a",
        "n_predict": 1,
        "grammar": 'root ::= "' + "a" * 60_000 + '"{2000}',
    },
    "one symbol repeated in 1400 ways": {"prompt": "a", "n_predict": 2, "grammar": 'root ::= "a"' + "+" * 1400},
    "a trigger that backtracks": {
        "prompt": "a" * 60 + "b",
        "n_predict": 8,
        "grammar": 'root ::= "a"*',
        "grammar_lazy": True,
        "grammar_triggers": [BACKTRACKING],
    },
    "a token to keep": {"prompt": "a", "n_predict": 1, "preserved_tokens": ["a" * 100_000]},
    "another's slot": {"prompt": "a", "n_predict": 1, "id_slot": 0},
    "8 GB of history": {"prompt": "a", "n_predict": 1, "repeat_last_n": 2**31 - 1},
    "8 GB of dry history": {"prompt": "a", "n_predict": 1, "dry_multiplier": 1, "dry_penalty_last_n": 2**31 - 1},
    "a reference of 200,000 letters": {"prompt": "a", "n_predict": 1, "json_schema": {"$ref": "#/" + "é" * 200_000}},
    "a name of 200,000 letters": {
        "prompt": "a",
        "n_predict": 1,
        "json_schema": {"type": "object", "properties": {"é" * 200_000: {"type": "string"}}},
    },
    "a deep schema": {"prompt": "a", "n_predict": 1, "json_schema": json.loads('{"items":' * 60 + "{}" + "}" * 60)},
    "a wide schema": {"prompt": "a", "n_predict": 1, "json_schema": {"anyOf": [{"const": n} for n in range(50_000)]}},
    "all probabilities": {"prompt": "a", "n_predict": 1, "n_probs": 2**31 - 1},
    "a million choices": {"prompt": "a", "n_predict": 1, "stream": True, "n": 1_000_000, "n_cmpl": 1},
    "two for one": {"prompt": "a", "n_predict": 1, "n": 1, "n_cmpl": 2},
}
# Each route's plainest body, into which the malformed values go.
PLAIN: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER], "max_tokens": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/completion": {"prompt": "a", "n_predict": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/v1/messages": {"messages": [USER], "max_tokens": 1},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 1},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": [USER]},
}
GROUPS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/completion": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/infill": "infill",
    "/tokenize": "tokenize",
    "/detokenize": "tokenize",
    "/apply-template": "chat",
}
VALUES: list[Any] = [None, True, -1, 2.5, 10**20, "", "x", [], ["x"], [None], [[1]], {}, {"type": "x"}]
LEAKS = ("json.exception", "std::", "_M_range", "basic_string", ".cpp", "terminate called")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Appliance]:
    overrides = {
        "model": {"aliases": ["tiny"]},
        "limits": {"requests_per_minute": None},
        "engine": {"slots": 2, "context_per_slot": 512},
    }
    with running(tmp_path_factory.mktemp("box"), model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_ready()
        yield appliance


@pytest.mark.parametrize("name", HOSTILE)
def test_the_engine_stays_the_same_process(box: Appliance, name: str) -> None:
    before = box.pid("engine")
    for path in ("/v1/completions", "/completion"):
        answer = box.post(path, {"model": "tiny", **HOSTILE[name]})
        assert answer.status == 400, answer.body
        assert answer.json()["error"]["param"], answer.body
    assert box.post("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 1}).status == 200
    assert box.pid("engine") == before


@pytest.mark.parametrize("path", PLAIN)
def test_no_malformed_body_is_the_servers_fault(box: Appliance, path: str) -> None:
    before = box.pid("engine")
    bodies = [
        {"model": "tiny", **PLAIN[path], name: value}
        for name in TABLES[GROUPS[path]]
        for value in VALUES
        if name not in ("model", "stream", "max_tokens", "n_predict", "max_output_tokens", "max_completion_tokens")
    ]
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda body: box.post(path, body), bodies))
    wrong = [
        (body, answer.status, answer.body[:200])
        for body, answer in zip(bodies, answers, strict=True)
        if answer.status not in (200, 400, 501) or any(word in str(answer.body) for word in LEAKS)
    ]
    assert not wrong, wrong[:3]
    assert box.pid("engine") == before
    assert box.get("/health").json()["engine"]["restarts"] == 0


def test_an_ambiguous_grammar_is_its_clients_error_and_stops_nobody(box: Appliance) -> None:
    """Forty bytes that had every slot wait for ever: twice as many ways with each token."""
    before = box.pid("engine")
    body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "grammar": 'root ::= "a" root "b" | "a" root "c"'}
    with ThreadPoolExecutor(2) as clients:
        hostile = clients.submit(box.post, "/v1/completions", body)
        other = clients.submit(box.post, "/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2})
        assert other.result().status == 200
        answer = hostile.result()
    assert answer.status == 400, answer.body
    assert "too many ways" in answer.json()["error"]["message"]
    assert box.pid("engine") == before
