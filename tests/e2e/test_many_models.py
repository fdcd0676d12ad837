"""Several models in one appliance, on the real llama-server: they take turns within the memory, and fail alone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import openai
import pytest

from support.appliance import Appliance
from support.many_models import IN_MEMORY, ManyModels, many_models
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

NAMES = ("a", "b", "c")
CLIENTS = ("ann", "bob", "cid")
QUICK = {"min_resident_seconds": 0.5, "max_swap_wait_seconds": 2}
MIB = 1 << 20


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three small models that say different things, and a slow one."""
    folder = tmp_path_factory.mktemp("weights")
    found = {name: write_tiny_model(folder / f"{name}.gguf", seed=seed) for seed, name in enumerate(NAMES)}
    return {**found, "slow": write_tiny_model(folder / "slow.gguf", layers=150, context=8192)}


def on_demand(weights: dict[str, Path], **changes: Any) -> dict[str, dict[str, Any]]:
    return {name: {"path": str(weights[name]), "load": "on_demand", **changes} for name in NAMES}


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, weights: dict[str, Path]
) -> tuple[dict[str, str], dict[str, int]]:
    """What each model says and uses where all have room: texts, and bytes of main memory."""
    with many_models(tmp_path_factory.mktemp("alone"), engine_binary, on_demand(weights)) as box:
        texts = {name: text_of(box, name) for name in NAMES}
        assert box.states() == dict.fromkeys(NAMES, "loaded")
        before = dict.fromkeys(NAMES, 0)

        def settled() -> bool:
            nonlocal before
            now = {name: one["host_bytes"] for name, one in box.residency().items()}
            same, before = now == before and all(now.values()), now
            time.sleep(0.2)
            return same

        box.appliance.wait_for(settled, 10, "sizes are measured")
    assert len(set(texts.values())) == len(NAMES), "they say different things"
    return texts, before


def text_of(box: ManyModels, name: str) -> str:
    found = box.complete(name, key="ann")
    assert found.status == 200, found.body
    return str(found.json()["choices"][0]["text"])


def room_for_two(sizes: dict[str, int]) -> dict[str, Any]:
    """A budget for any two of three models."""
    largest = sorted(sizes.values())
    return {"host_mib": (largest[-1] + largest[-2] + largest[0] // 2) // MIB, **QUICK}


def room_for_one(sizes: dict[str, int]) -> dict[str, Any]:
    return {"host_mib": (max(sizes.values()) + min(sizes.values()) // 2) // MIB, **QUICK}


class Watcher:
    """Looks all the time at what is in memory: as the gateway says, and as supervisord has it."""

    def __init__(self, box: ManyModels) -> None:
        self._box = box
        self._ended = threading.Event()
        self.most_bytes = self.most_engines = self.looks = 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            models = self._box.residency().values()
            used = sum(one["host_bytes"] for one in models if one["state"] in IN_MEMORY)
            self.most_bytes = max(self.most_bytes, used)
            self.most_engines = max(self.most_engines, len(self._box.engines()))
            self.looks += 1


@pytest.mark.parametrize("fit", [1, 2])
def test_models_take_turns_under_load_and_never_exceed_their_memory(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path], alone: Any, fit: int
) -> None:
    """Every response is that of the model that was asked for, from three keys at once."""
    texts, sizes = alone
    memory = (room_for_one if fit == 1 else room_for_two)(sizes)
    with many_models(tmp_path, engine_binary, on_demand(weights), memory=memory) as box:
        chance = random.Random(fit)
        jobs = [(key, chance.choice(NAMES)) for _ in range(20) for key in CLIENTS]

        def one(job: tuple[str, str]) -> tuple[str, int, str]:
            key, name = job
            found = box.complete(name, key=key)
            return name, found.status, found.json()["choices"][0]["text"] if found.status == 200 else str(found.body)

        with Watcher(box) as watcher, ThreadPoolExecutor(6) as pool:
            results = list(pool.map(one, jobs))
        assert results == [(name, 200, texts[name]) for _, name in jobs]
        assert watcher.looks > 10
        assert watcher.most_engines == fit
        assert watcher.most_bytes <= memory["host_mib"] * MIB
        assert box.metric("llama_gguf_model_loads_total", result="loaded") > len(NAMES), "none was loaded twice"
        assert box.metric("llama_gguf_model_loads_total", result="failed") == 0


@dataclass
class Crowd:
    """Clients that use the models until `ended`: some wait for their responses, one hangs up before or in them."""

    box: ManyModels
    texts: dict[str, str]
    ended: threading.Event = field(default_factory=threading.Event)
    served: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def use(self, number: int) -> None:
        """Send requests; note what is neither right nor a clean error."""
        chance = random.Random(number)
        while not self.ended.is_set():
            name = chance.choice(NAMES)
            try:
                found = self.box.complete(name, key=CLIENTS[number % 3])
            except (OSError, HTTPException):
                continue  # the gateway was killed
            if found.status == 200 and found.json()["choices"][0]["text"] == self.texts[name]:
                self.served[name] += 1
            elif found.status not in (502, 503) or not found.json()["error"]["code"]:
                self.wrong.append(f"{name}: {found.status} {found.body!r}")

    def hang_up(self) -> None:
        """Send requests and disconnect a little later."""
        chance = random.Random(0)
        while not self.ended.is_set():
            with contextlib.suppress(OSError, HTTPException):
                connection = send_stream(self.box, chance.choice(NAMES), 400)
                time.sleep(chance.uniform(0, 0.3))
                connection.close()

    def kill_some(self, program: str | None = None) -> None:
        """kill -9 of a program, or of an engine that runs."""
        if program is not None:
            self.box.appliance.kill(program, signal.SIGKILL)
        elif engines := self.box.engines():
            with contextlib.suppress(ProcessLookupError):  # it was being unloaded
                os.kill(random.Random(len(self.served)).choice(sorted(engines.values())), signal.SIGKILL)

    def all_served(self) -> bool:
        """Whether each model serves now."""
        with contextlib.suppress(OSError, HTTPException):
            return all(self.box.complete(name, key="ann").status == 200 for name in NAMES)
        return False


def test_processes_are_killed_and_clients_hang_up_while_models_take_turns(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path], alone: Any
) -> None:
    """Every response is right or a clean error, no more engines run than fit, and in the end all models serve."""
    texts, sizes = alone
    with many_models(tmp_path, engine_binary, on_demand(weights), memory=room_for_two(sizes)) as box:
        crowd = Crowd(box, texts)
        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(crowd.use, number) for number in range(6)] + [pool.submit(crowd.hang_up)]
            try:
                for number in range(12):
                    assert len(box.engines()) <= 2
                    crowd.kill_some("gateway" if number == 6 else None)
                    time.sleep(0.7)
            finally:
                crowd.ended.set()
            for client in clients:
                client.result()
        assert not crowd.wrong
        box.appliance.wait_for(crowd.all_served, 20, "all models serve")
        assert crowd.served
        assert len(box.engines()) <= 2
        assert box.appliance.ping() == 200


def test_a_flood_on_one_model_leaves_another_its_turns(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path], alone: Any
) -> None:
    texts, sizes = alone
    with many_models(tmp_path, engine_binary, on_demand(weights), memory=room_for_one(sizes)) as box:
        ended = threading.Event()
        served = {"ann": 0, "bob": 0}

        def flood(key: str) -> None:
            while not ended.is_set():
                found = box.complete("a", key=key, max_tokens=64)
                assert found.status == 200, found.body
                served[key] += 1

        with ThreadPoolExecutor(8) as pool:
            flooding = [pool.submit(flood, key) for key in ("ann", "bob") * 4]
            try:
                box.appliance.wait_for(lambda: min(served.values()) >= 2, 20, "the flood is there")
                for _ in range(4):
                    before = dict(served)
                    found = box.complete("b", key="cid")
                    assert (found.status, found.json()["choices"][0]["text"]) == (200, texts["b"])

                    def served_since(before: dict[str, int] = before) -> bool:
                        return all(served[key] > before[key] for key in served)

                    box.appliance.wait_for(served_since, 20, "a is served again")
            finally:
                ended.set()
        for one in flooding:
            one.result()


def test_kill_of_one_engine_leaves_the_streams_of_others(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path]
) -> None:
    models = {"slow": {"path": str(weights["slow"])}, "b": {"path": str(weights["b"])}}
    with many_models(tmp_path, engine_binary, models, engine={"context_per_slot": 4096}) as box:
        engines = box.engines()
        connection, answer = open_stream(box, "slow", 300)
        first = answer.readline()
        assert first.startswith(b"data: {")
        box.appliance.kill("engine-b", signal.SIGKILL)
        box.appliance.wait_for(lambda: box.engines().get("b", engines["b"]) != engines["b"], 20, "b is restarted")
        assert text_of(box, "b")
        rest = answer.read()
        connection.close()
        assert_whole(rest, 300)
        assert box.engines()["slow"] == engines["slow"]


def send_stream(box: ManyModels, model: str, tokens: int) -> HTTPConnection:
    """Send a request for a stream."""
    connection = HTTPConnection("127.0.0.1", box.appliance.gateway_port, timeout=600)
    body = {"model": model, "prompt": "abc", "max_tokens": tokens, "stream": True, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {box.keys['ann']}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    return connection


def open_stream(box: ManyModels, model: str, tokens: int) -> tuple[HTTPConnection, HTTPResponse]:
    """Begin a stream."""
    connection = send_stream(box, model, tokens)
    answer = connection.getresponse()
    assert answer.status == 200
    return connection, answer


def assert_whole(stream: bytes, tokens: int) -> None:
    *_, last, done = stream.split(b"data: ")
    assert done.strip() == b"[DONE]"
    assert json.loads(last)["timings"]["predicted_n"] == tokens


def test_a_stream_in_a_model_is_finished_before_it_gives_way(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path]
) -> None:
    """And who waits for the other gets it afterwards."""
    models = {name: {"path": str(weights[name]), "load": "on_demand"} for name in ("slow", "b")}
    with many_models(tmp_path, engine_binary, models, engine={"context_per_slot": 4096}) as box:
        text_of(box, "slow"), text_of(box, "b")
        time.sleep(1)
        sizes = {name: one["host_bytes"] for name, one in box.residency().items()}
    folder = tmp_path / "second"
    folder.mkdir()
    memory = {"host_mib": (max(sizes.values()) + min(sizes.values()) // 2) // MIB, **QUICK}
    with many_models(folder, engine_binary, models, engine={"context_per_slot": 4096}, memory=memory) as box:
        connection, answer = open_stream(box, "slow", 400)
        answer.readline()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(text_of, box, "b")
            box.wait_state("slow", "draining")
            rest = answer.read()
            connection.close()
            assert_whole(rest, 400)
            assert other.result()
        assert box.states() == {"slow": "unloaded", "b": "loaded"}


def test_a_model_that_cannot_be_loaded_fails_alone(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path]
) -> None:
    broken = tmp_path / "broken-engine"
    fails = 'case "$*" in *"--alias b"*) echo "no such luck"; exit 1;; esac'
    broken.write_text(f'#!/bin/sh\n{fails}\nexec "{engine_binary}" "$@"\n')
    broken.chmod(0o755)
    models = {
        "a": {"path": str(weights["a"])},
        "b": {"path": str(weights["b"]), "load": "on_demand"},
    }
    with many_models(tmp_path, broken, models) as box:
        found = box.complete("b", key="ann")
        assert (found.status, found.json()["error"]["code"]) == (503, "model_failed"), found.body
        assert int(found.headers["retry-after"]) > 0
        assert box.states() == {"a": "loaded", "b": "failed"}
        assert box.complete("b", key="bob").status == 503
        assert text_of(box, "a")
        assert box.appliance.ping() == 200
        loaded = by_command(box, "load", "b")
        assert loaded.returncode == 69, loaded.stdout
        assert "error: b could not be loaded: " in loaded.stderr
        assert "hint: " in loaded.stderr
        status = box.appliance.status()
        shown = {one["name"]: one for one in status["models"]}
        assert (status["state"], shown["a"]["state"], shown["b"]["state"]) == ("ready", "serving", "failed")
        assert shown["a"]["memory"]["anonymous_bytes"] > 0
        assert shown["b"]["failure"]["program"] == "engine-b"
        assert shown["b"]["failure"]["summary"]
        assert status["failure"] is None


def by_command(box: ManyModels, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `llama-gguf models` as an operator."""
    key = box.appliance.folder / "operator.key"
    key.write_text(box.keys["admin"])
    return box.appliance.cli("models", *arguments, "--run-dir", str(box.appliance.run_dir), "--key-file", str(key))


def test_an_operator_does_the_same_at_the_command_line(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path], alone: Any
) -> None:
    with many_models(tmp_path, engine_binary, on_demand(weights), memory=room_for_one(alone[1])) as box:
        for words, says in (
            (("load", "a"), "a: loaded\n"),
            (("load", "b"), "b: loaded\n"),
            (("pin", "c"), "c: loaded, pinned\n"),
            (("unpin", "c"), "c: loaded\n"),
            (("unload", "c"), "c: unloaded\n"),
        ):
            done = by_command(box, *words)
            assert (done.returncode, done.stdout) == (0, says), done.stderr
        assert box.states() == dict.fromkeys(NAMES, "unloaded")
        status = box.appliance.status()
        assert [one["residency"] for one in status["models"]] == ["unloaded"] * 3
        assert (status["state"], [one["state"] for one in status["models"]]) == ("ready", ["unloaded"] * 3)
        assert box.keys["admin"] not in box.appliance.stdout + box.appliance.stderr


def test_idle_models_leave_and_nothing_but_a_request_loads_them(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path]
) -> None:
    with many_models(tmp_path, engine_binary, on_demand(weights, unload_after_seconds=0.5)) as box:
        text = text_of(box, "a")
        box.wait_state("a", "unloaded")
        box.appliance.wait_for(lambda: not box.engines(), 10, "no engine runs")
        for _ in range(5):
            assert box.appliance.ping() == 200
            assert box.get("/metrics", key="admin").status == 200
            assert box.get("/health", key="admin").status == 200
            assert box.states() == dict.fromkeys(NAMES, "unloaded")
        assert not box.engines()
        assert text_of(box, "a") == text


def test_an_operator_loads_unloads_and_pins(
    tmp_path: Path, engine_binary: Path, weights: dict[str, Path], alone: Any
) -> None:
    with many_models(tmp_path, engine_binary, on_demand(weights), memory=room_for_one(alone[1])) as box:

        def change(what: str, name: str, *, key: str = "admin") -> int:
            return box.post(f"/models/{what}", {"model": name}, key=key).status

        assert change("load", "a", key="ann") == 403
        assert change("load", "a") == 202
        box.wait_state("a", "loaded")
        assert change("unload", "a") == 202
        box.wait_state("a", "unloaded")
        assert change("pin", "b") == 202
        box.wait_state("b", "loaded")
        refused = box.complete("a", key="ann")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "model_failed"), refused.body
        assert change("unpin", "b") == 202
        box.appliance.wait_for(lambda: box.complete("a", key="ann").status == 200, 10, "a gets its turn")
        assert change("load", "nothing") == 404
        lines = (box.appliance.folder / "data" / "audit.jsonl").read_text().splitlines()
        changes = [record["action"] for line in lines if (record := json.loads(line))["action"].startswith("models.")]
        assert changes == ["models.load", "models.unload", "models.pin", "models.unpin"]


@pytest.fixture(scope="module")
def shelf(
    tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, weights: dict[str, Path]
) -> Iterator[ManyModels]:
    """A chat model with a variant, another, and one that embeds."""
    models: dict[str, dict[str, Any]] = {
        "chat": {
            "path": str(weights["a"]),
            "aliases": ["gpt-4o"],
            "variants": {"chat-short": {"max_output_tokens": 3, "defaults": {"temperature": 0}}},
        },
        "other": {"path": str(weights["b"]), "load": "on_demand"},
        "embed": {"path": str(weights["c"]), "engine": {"task": "embed", "pooling": "mean"}},
    }
    with many_models(tmp_path_factory.mktemp("shelf"), engine_binary, models) as box:
        box.add_key("only-other", "--models", "other")
        box.add_key("capped", "--max-output-tokens", "4", "--defaults", '{"max_tokens": 4000}')
        yield box


def client_of(box: ManyModels, key: str) -> openai.OpenAI:
    port = box.appliance.gateway_port
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=box.keys[key], max_retries=0)


def test_the_official_client_lists_chooses_and_uses_them(shelf: ManyModels) -> None:
    with client_of(shelf, "ann") as client:
        listed = {one.id for one in client.models.list()}
        assert listed == {"chat", "gpt-4o", "chat-short", "other", "embed"}
        for name in ("chat", "gpt-4o", "other"):
            answer = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": "Hi"}], max_tokens=5, extra_body={"ignore_eos": True}
            )
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 5
        short = client.completions.create(
            model="chat-short", prompt="abc", max_tokens=50, extra_body={"ignore_eos": True}
        )
        assert short.usage is not None
        assert short.usage.completion_tokens == 3
        assert len(client.embeddings.create(model="embed", input="Hi").data[0].embedding) > 10
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="embed", messages=[{"role": "user", "content": "Hi"}])
        assert caught.value.code == "not_supported"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-99", messages=[{"role": "user", "content": "Hi"}])


def test_a_key_sees_and_uses_its_own_only(shelf: ManyModels) -> None:
    assert list(shelf.states(key="only-other")) == ["other"]
    assert shelf.complete("other", key="only-other").status == 200
    assert shelf.complete("chat", key="only-other").json()["error"]["code"] == "model_not_found"


def test_a_keys_cap_holds_whatever_it_asks_for(shelf: ManyModels) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}], "ignore_eos": True}
    plain = {"prompt": "abc", "ignore_eos": True}
    tried: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"max_completion_tokens": 90}),
        ("/v1/completions", plain | {"n_predict": -1}),
        ("/v1/completions", plain | {"max_tokens": 90, "n_predict": 90}),
        ("/completion", plain | {"n_predict": 2**31 - 1}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 90, "ignore_eos": True}),
        ("/v1/messages", {"messages": chat["messages"], "max_tokens": 90}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 90, "ignore_eos": True}),
    ]
    for path, body in tried:
        for model in ({"model": "chat"}, {"model": "other"}, {}):
            answer = shelf.post(path, body | model, key="capped")
            if path == "/infill" and answer.status == 501:  # the tiny model has no tokens for it
                continue
            assert answer.status == 200, (path, body, answer.body)
            found = answer.json()
            usage = found.get("usage") or {}
            counted = usage.get("completion_tokens", usage.get("output_tokens", found.get("tokens_predicted")))
            assert counted is not None, (path, found)
            assert counted <= 4, (path, body, model)
            assert (
                "max" in answer.headers["x-changed-parameters"] or "n_predict" in answer.headers["x-changed-parameters"]
            )


def test_what_was_counted_is_told_by_model(shelf: ManyModels) -> None:
    before = {name: shelf.metric("llama_gguf_completion_tokens_total", model=name) for name in ("chat", "other")}
    assert shelf.complete("other", key="bob", max_tokens=7).status == 200

    def counted() -> bool:
        now = {name: shelf.metric("llama_gguf_completion_tokens_total", model=name) for name in before}
        return now == {**before, "other": before["other"] + 7}

    shelf.appliance.wait_for(counted, 10, "7 tokens of `other`")


def test_it_stops_and_leaves_nothing(tmp_path: Path, engine_binary: Path, weights: dict[str, Path]) -> None:
    with many_models(tmp_path, engine_binary, on_demand(weights)) as box:
        text_of(box, "a")
        appliance: Appliance = box.appliance
        assert appliance.stop() == 0
        assert appliance.leftovers() == []
