"""Which model a request is for, through the whole gateway: names, aliases, variants, tasks and keys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_engine import FakeEngine, Seen
from support.gateway_box import KEY, default_keys, key_record
from support.running_gateway import body_of, chat
from support.running_models import RunningModels, running_models

MODELS: dict[str, Any] = {
    "embed": {"path": "/models/e.gguf", "engine": {"task": "embed", "context_per_slot": 512}},
    "chat": {
        "path": "/models/a.gguf",
        "aliases": ["gpt-4o"],
        "max_output_tokens": 64,
        "variants": {"chat-cold": {"defaults": {"temperature": 0}, "max_output_tokens": 8, "strip": ["seed"]}},
    },
    "rank": {"path": "/models/r.gguf", "engine": {"task": "rerank", "context_per_slot": 512}},
}
RESTRICTED = "sk-test-restricted-00000000000000000"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningModels]:
    async with running_models(tmp_path, {"models": MODELS}, needs=dict.fromkeys(MODELS, 1), budget=None) as found:
        found.box.write_keys((*default_keys(), key_record("one", RESTRICTED, models=("chat-cold", "embed"))))
        await found.gateway.reload_keys()
        yield found


def posted(engine: FakeEngine) -> list[Seen]:
    """Return the requests of clients that an engine got."""
    return [seen for seen in engine.asked if seen.method == "POST"]


async def served_by(running: RunningModels, path: str, key: str = KEY, **changes: Any) -> tuple[int, str]:
    """Make a request; return the status and the model whose engine got it, or the error's code."""
    engines = running.supervisord.engines
    before = {name: len(posted(engine)) for name, engine in engines.items()}
    body = {name: value for name, value in (body_of(path) | changes).items() if value is not None}
    answer = await running.ask("POST", path, body=body, key=key)
    after = [name for name, engine in engines.items() if len(posted(engine)) > before[name]]
    if answer.status != 200:
        assert not after
        return answer.status, answer.error["code"]
    (program,) = after
    return 200, program.removeprefix("engine-")


@pytest.mark.parametrize("name", ["chat", "gpt-4o", "chat-cold"])
async def test_every_name_leads_to_its_model(running: RunningModels, name: str) -> None:
    assert await served_by(running, "/v1/chat/completions", model=name) == (200, "chat")


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v1/chat/completions", "chat"), ("/v1/embeddings", "embed"), ("/rerank", "rank"), ("/v1/completions", "chat")],
)
async def test_a_request_that_names_none_is_for_the_first_that_can(
    running: RunningModels, path: str, model: str
) -> None:
    assert await served_by(running, path, model=None) == (200, model)


@pytest.mark.parametrize(
    ("path", "model", "status", "code"),
    [
        ("/v1/chat/completions", "embed", 501, "not_supported"),
        ("/v1/embeddings", "chat", 501, "not_supported"),
        ("/rerank", "embed", 501, "not_supported"),
        ("/v1/embeddings", "rank", 501, "not_supported"),
        ("/v1/chat/completions", "tiny", 404, "model_not_found"),
        ("/v1/chat/completions", "CHAT", 404, "model_not_found"),
        ("/v1/chat/completions", "chat ", 404, "model_not_found"),
    ],
)
async def test_what_a_model_does_not_do_is_told(
    running: RunningModels, path: str, model: str, status: int, code: str
) -> None:
    assert await served_by(running, path, model=model) == (status, code)


async def test_a_key_sees_and_uses_its_own(running: RunningModels) -> None:
    listed = (await running.ask("GET", "/v1/models", key=RESTRICTED)).json()["data"]
    assert [one["id"] for one in listed] == ["embed", "chat-cold"]
    assert listed[1]["parent"] == "chat"
    assert (await running.ask("GET", "/v1/models/chat", key=RESTRICTED)).status == 404
    path = "/v1/chat/completions"
    assert await served_by(running, path, RESTRICTED, model="chat-cold") == (200, "chat")
    assert await served_by(running, path, RESTRICTED, model="chat") == (404, "model_not_found")
    assert await served_by(running, path, RESTRICTED, model="gpt-4o") == (404, "model_not_found")
    assert await served_by(running, "/v1/embeddings", RESTRICTED, model=None) == (200, "embed")


async def test_every_model_is_listed_with_what_is_known(running: RunningModels) -> None:
    listed = {one["id"]: one for one in (await running.ask("GET", "/v1/models")).json()["data"]}
    assert list(listed) == ["embed", "chat", "gpt-4o", "chat-cold", "rank"]
    assert (listed["embed"]["task"], listed["embed"]["context"]) == ("embed", 512)
    assert (listed["chat"]["task"], listed["chat"]["context"]) == ("generate", 2048)
    assert {one["modalities"][0] for one in listed.values()} == {"text"}


async def test_what_an_engine_says_of_its_model_is_listed_once_it_is_loaded(running: RunningModels) -> None:
    await running.until(lambda: all(one.models.known for one in running.gateway.backends.all))
    listed = (await running.ask("GET", "/v1/models")).json()["data"]
    assert {one["meta"]["n_ctx_train"] for one in listed} == {2048}
    asked = [seen.target for engine in running.supervisord.engines.values() for seen in engine.seen]
    assert asked.count("/v1/models") == len(MODELS)  # the list asks nobody


async def test_rules_of_a_variant_hold_for_it_and_are_visible(running: RunningModels) -> None:
    body = chat() | {"model": "chat-cold", "max_tokens": 5000, "seed": 7}
    answer = await running.ask("POST", "/v1/chat/completions", body=body)
    sent = json.loads(posted(running.supervisord.engines["engine-chat"])[-1].body)
    assert (sent["max_tokens"], sent["temperature"]) == (8, 0)
    assert "seed" not in sent
    assert answer.headers["x-changed-parameters"] == "seed, temperature, max_tokens"
    answer = await running.ask("POST", "/v1/chat/completions", body=body | {"model": "chat"})
    sent = json.loads(posted(running.supervisord.engines["engine-chat"])[-1].body)
    assert (sent["max_tokens"], sent["seed"]) == (64, 7)
    assert "temperature" not in sent
    lines = await running.lines(2)
    changed = {line["model"]: line["changed"] for line in lines if line["route"] == "/v1/chat/completions"}
    assert changed == {"chat-cold": "seed,temperature,max_tokens", "chat": "max_tokens"}


async def test_usage_and_metrics_are_by_the_name_that_was_used(running: RunningModels) -> None:
    await served_by(running, "/v1/chat/completions", model="chat-cold")
    await served_by(running, "/v1/embeddings", model="embed")
    text = (await running.ask("GET", "/metrics", key="sk-test-admin-000000000000000000000")).body.decode()
    assert "llama_gguf_requests_total{" in text
    counted = [line for line in text.splitlines() if line.startswith("llama_gguf_requests_total{")]
    assert any('model="chat-cold"' in line and 'route="/v1/chat/completions"' in line for line in counted)
    assert any('model="embed"' in line and 'route="/v1/embeddings"' in line for line in counted)
    for model in MODELS:
        assert f'llama_gguf_slots{{model="{model}"' in text


async def test_properties_are_those_of_the_model_in_the_query(running: RunningModels) -> None:
    for name, program in (("embed", "engine-embed"), ("chat-cold", "engine-chat")):
        before = len(running.supervisord.engines[program].seen)
        answer = await running.ask("GET", f"/props?model={name}", key="sk-test-admin-000000000000000000000")
        assert answer.status == 200
        assert len(running.supervisord.engines[program].seen) > before
    assert (await running.ask("GET", "/props?model=x", key="sk-test-admin-000000000000000000000")).status == 404


async def test_a_request_that_names_no_model_has_the_rules_of_the_one_that_serves_it(running: RunningModels) -> None:
    """Not those of the first model of the configuration, which does something else."""
    assert await served_by(running, "/v1/completions", model=None, max_tokens=500) == (200, "chat")
    seen = posted(running.supervisord.engines["engine-chat"])[-1]
    assert json.loads(seen.body)["max_tokens"] == 64
