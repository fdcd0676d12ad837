"""Models that take turns: loaded by requests, unloaded when idle or in the way, and what an operator does with them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.gateway.backends import residency_driver
from llama_gguf.gateway.backends.memory import PlannedMemory, plan_memory
from llama_gguf.rundir import residency as residency_file
from llama_gguf.rundir.supervisord_client import SupervisordError
from llama_gguf.states import Residency
from support.gateway_box import ADMIN_KEY, KEY
from support.running_gateway import chat
from support.running_models import MIB, FakeSupervisord, RunningModels, running_models

StartModels = Callable[..., Any]
ON_DEMAND: dict[str, Any] = {
    "a": {"path": "/models/a.gguf", "load": "on_demand"},
    "b": {"path": "/models/b.gguf", "load": "on_demand"},
}
QUICK = {"min_resident_seconds": 0.01, "max_swap_wait_seconds": 5.0}


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartModels]:
    async with AsyncExitStack() as stack:

        async def enter(models: dict[str, Any], **options: Any) -> RunningModels:
            settings = {"models": models, "memory": QUICK} | options.pop("settings", {})
            needs = options.pop("needs", dict.fromkeys(models, 1000))
            running = running_models(tmp_path, settings, needs=needs, budget=options.pop("budget", 1500), **options)
            return await stack.enter_async_context(running)

        yield enter


def ask_model(running: RunningModels, model: str, *, key: str = KEY, **fake: Any) -> asyncio.Task[Any]:
    body = chat(**fake) | {"model": model}
    return asyncio.create_task(running.ask("POST", "/v1/chat/completions", body=body, key=key))


async def manage(running: RunningModels, action: str, model: str, key: str = ADMIN_KEY) -> Any:
    return await running.ask("POST", f"/models/{action}", body={"model": model}, key=key)


async def test_a_request_loads_its_model_and_one_that_does_not_fit_gives_way(start: StartModels) -> None:
    running = await start(ON_DEMAND)
    assert (running.state("a"), running.state("b")) == ("unloaded", "unloaded")
    assert running.supervisord.done == []
    assert (await ask_model(running, "a")).status == 200
    assert (running.state("a"), running.state("b")) == ("loaded", "unloaded")
    assert (await ask_model(running, "b")).status == 200
    assert (running.state("a"), running.state("b")) == ("unloaded", "loaded")
    assert running.supervisord.done == ["start engine-a", "stop engine-a", "start engine-b"]
    assert running.supervisord.most_running == 1


async def test_models_that_fit_stay_side_by_side(start: StartModels) -> None:
    running = await start(ON_DEMAND, budget=3000)
    for model in ("a", "b", "a", "b"):
        assert (await ask_model(running, model)).status == 200
    assert running.supervisord.done == ["start engine-a", "start engine-b"]


async def test_what_runs_is_never_cut_short_for_a_swap(start: StartModels) -> None:
    running = await start(ON_DEMAND)
    first = ask_model(running, "a", delay=3.0)
    await running.until(lambda: running.state("a") == "loaded")
    second = ask_model(running, "b")
    await running.until(lambda: running.state("a") == "draining")
    late = ask_model(running, "a")  # waits for its model's next turn
    assert running.supervisord.states["engine-a"] == "RUNNING"
    assert (await first).status == 200
    assert (await second).status == 200
    assert (await late).status == 200
    assert running.supervisord.most_running == 1


async def test_everybody_gets_an_answer_while_models_swap_under_load(start: StartModels) -> None:
    models = ON_DEMAND | {"c": {"path": "/models/c.gguf", "load": "on_demand"}}
    running = await start(models, budget=2500)
    answers = await asyncio.gather(*(ask_model(running, "abc"[number % 3]) for number in range(60)))
    assert {answer.status for answer in answers} == {200}
    assert running.supervisord.most_running <= 2


async def test_a_flood_gives_way_once_what_queued_before_the_load_is_in(start: StartModels) -> None:
    """Not only when the other has waited too long, which here is never."""
    settings = {"memory": QUICK | {"max_swap_wait_seconds": 600.0}, "engine": {"slots": 2, "context_per_slot": 2048}}
    running = await start(ON_DEMAND, settings=settings)
    ended = asyncio.Event()

    async def flood() -> None:
        while not ended.is_set():
            assert (await ask_model(running, "a", delay=0.3)).status == 200

    clients = [asyncio.create_task(flood()) for _ in range(6)]
    await running.until(lambda: running.state("a") == "loaded")
    async with asyncio.timeout(60):
        assert (await ask_model(running, "b")).status == 200
    ended.set()
    await asyncio.gather(*clients)


async def test_an_idle_model_is_unloaded_and_neither_health_nor_metrics_load_it(start: StartModels) -> None:
    models = {"a": ON_DEMAND["a"] | {"unload_after_seconds": 0.2}}
    running = await start(models)
    assert (await ask_model(running, "a")).status == 200
    await running.until(lambda: running.state("a") == "unloaded")
    assert running.supervisord.done == ["start engine-a", "stop engine-a"]
    health = await running.ask("GET", "/health", key=None)
    assert health.json()["status"] == "ready"
    metrics = await running.ask("GET", "/metrics", key=ADMIN_KEY)
    assert 'llama_gguf_engine_state{model="a",state="unloaded"' in metrics.body.decode()
    listed = (await running.ask("GET", "/v1/models")).json()["data"]
    assert [(one["id"], one["state"]) for one in listed] == [("a", "unloaded")]
    assert running.supervisord.done == ["start engine-a", "stop engine-a"]
    assert (await ask_model(running, "a")).status == 200  # and a request does


async def test_one_model_that_sleeps_is_stopped_and_started_again(tmp_path: Path) -> None:
    settings = {"engine": {"slots": 2, "context_per_slot": 2048, "sleep_idle_seconds": 0.2}}
    async with running_models(tmp_path, settings, needs={"": 0}, budget=None) as running:
        assert (await running.chat()).status == 200
        await running.until(lambda: running.supervisord.states["engine"] == "STOPPED")
        found = residency_file.read(running.box.shot.locations.run.residency)
        assert [one.wanted for one in found.values()] == [False]
        held = asyncio.create_task(running.chat(delay=0.6))  # longer than it may be idle
        assert (await held).status == 200
        assert running.supervisord.done.count("start engine") == 2


async def test_a_request_that_is_open_keeps_its_model_loaded(start: StartModels) -> None:
    running = await start({"a": ON_DEMAND["a"] | {"unload_after_seconds": 0.1}})
    assert (await ask_model(running, "a", delay=0.7)).status == 200
    assert running.supervisord.done[0] == "start engine-a"
    assert "stop engine-a" not in running.supervisord.done[:1]
    await running.until(lambda: running.state("a") == "unloaded")


async def test_a_model_that_fails_fails_alone_and_is_tried_again_later(start: StartModels) -> None:
    running = await start(ON_DEMAND, broken={"engine-a": "tensor 'x' not found in /models/secret/a.gguf"})
    answers = await asyncio.gather(ask_model(running, "a"), ask_model(running, "a"))
    for answer in answers:
        assert (answer.status, answer.error["code"]) == (503, "model_failed")
        assert "tensor 'x' not found" in answer.error["message"]
        assert "/models/secret" not in answer.error["message"]
    again = await ask_model(running, "a")  # at once, without another start
    assert (again.status, again.error["code"]) == (503, "model_failed")
    assert 1 <= int(again.headers["retry-after"]) <= 15
    assert running.supervisord.done == ["start engine-a"]
    assert (await ask_model(running, "b")).status == 200
    assert (await running.ask("GET", "/health", key=None)).json()["status"] == "ready"
    running.supervisord.broken.clear()
    assert (await manage(running, "load", "a")).status == 202  # an operator does not wait
    await running.until(lambda: running.state("a") == "loaded")
    assert (await ask_model(running, "a")).status == 200


async def test_a_model_that_never_fits_says_so_at_once(start: StartModels) -> None:
    running = await start(ON_DEMAND, needs={"a": 1000, "b": 2000})
    assert (await ask_model(running, "a")).status == 200
    answer = await ask_model(running, "b")
    assert (answer.status, answer.error["code"]) == (503, "model_failed")
    assert "2000 MiB" in answer.error["message"]
    assert running.state("a") == "loaded"


async def test_an_operator_loads_unloads_and_pins(start: StartModels) -> None:
    running = await start(ON_DEMAND)
    assert (await manage(running, "pin", "a")).json()["pinned"] is True
    await running.until(lambda: running.state("a") == "loaded")
    refused = await ask_model(running, "b")  # it never fits beside a pinned one
    assert (refused.status, refused.error["code"]) == (503, "model_failed")
    # Not which: not every key may use them.
    assert refused.error["message"].endswith("models that are never unloaded use 1000 MiB")
    _, seen = (await running.ask("GET", "/models/residency", key=ADMIN_KEY)).json()["models"]
    assert seen["problem"].endswith("models that are never unloaded use 1000 MiB (a)")
    assert (await manage(running, "unpin", "a")).status == 202
    assert (await ask_model(running, "b")).status == 200
    assert (await manage(running, "unload", "b")).status == 202
    await running.until(lambda: running.state("b") == "unloaded")
    shown = (await running.ask("GET", "/models/residency", key=ADMIN_KEY)).json()["models"]
    assert [(one["name"], one["state"], one["host_bytes"] >> 20) for one in shown] == [
        ("a", "unloaded", 1000),
        ("b", "unloaded", 1000),
    ]
    audit = await asyncio.to_thread(running.box.shot.locations.audit_file.read_text)
    actions = [json.loads(line)["action"] for line in audit.splitlines()]
    assert [action for action in actions if action.startswith("models.")] == [
        "models.pin",
        "models.unpin",
        "models.unload",
    ]


async def test_an_operators_wish_waits_since_it_was_made(start: StartModels) -> None:
    """Not since the model was unloaded: then it would come before every request."""
    running = await start(ON_DEMAND)
    driver = running.gateway.models
    assert driver is not None
    before = time.monotonic()
    driver.load("b")
    seen = driver.find("b").seen()
    assert seen.waiting == 1
    assert seen.oldest_waiting_since is not None
    assert seen.oldest_waiting_since >= before


@pytest.mark.parametrize("action", ["load", "unload", "pin", "unpin"])
async def test_nobody_else_does(start: StartModels, action: str) -> None:
    running = await start(ON_DEMAND)
    assert (await manage(running, action, "a", key=KEY)).status == 403
    assert (await manage(running, action, "nothing")).status == 404
    for body in (b"", b"[]", b'{"model": 3}', b"{"):
        answer = await running.ask("POST", f"/models/{action}", body=body, key=ADMIN_KEY)
        assert answer.status == 400
    assert running.supervisord.done == []


async def test_waiting_streams_hear_where_they_are(start: StartModels) -> None:
    settings = {"gateway": {"sse_keepalive_seconds": 0.05}}
    running = await start(ON_DEMAND, loading_seconds=0.6, settings=settings)
    body = chat(stream=True) | {"model": "a"}
    answer = await running.ask("POST", "/v1/chat/completions", body=body)
    assert answer.status == 200
    assert answer.events[0].startswith(": queue-position=1 expected-wait=")
    assert answer.events[-1] == "data: [DONE]"


async def test_a_client_that_leaves_while_its_model_loads_costs_nothing_more(start: StartModels) -> None:
    running = await start(ON_DEMAND, loading_seconds=0.3)
    task = ask_model(running, "a")
    await running.until(lambda: running.state("a") == "loading")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await ask_model(running, "b")).status == 200
    assert not any(seen.method == "POST" for seen in running.supervisord.engines["engine-a"].asked)


async def test_an_unknown_model_is_not_any_of_several(start: StartModels) -> None:
    running = await start(ON_DEMAND, budget=3000)
    answer = await ask_model(running, "gpt-4o")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert running.supervisord.done == []


async def test_health_misses_only_what_serves_from_the_start(start: StartModels) -> None:
    models = {"a": {"path": "/models/a.gguf", "unload_after_seconds": 0.3}, "b": ON_DEMAND["b"]}
    running = await start(models, budget=3000)
    file = running.box.shot.locations.run.residency
    assert "engine-a" not in residency_file.read(file)  # it loads now: health waits for it
    await running.until(lambda: running.state("a") == "loaded")
    await running.until(lambda: running.state("a") == "unloaded")
    await running.until(lambda: "engine-a" in residency_file.read(file))
    assert not residency_file.read(file)["engine-a"].wanted


async def test_models_for_one_gpu_are_loaded_one_after_the_other_from_the_start(start: StartModels) -> None:
    """Each takes what it finds free, so two must not look at the same time."""
    models = {name: {"path": f"/models/{name}.gguf"} for name in "abc"}
    running = await start(models, budget=4000, stopped=("b", "c"), loading_seconds=0.2)
    assert residency_file.read(running.box.shot.locations.run.residency) == {}  # health waits for all of them
    await running.until(lambda: {running.state(name) for name in models} == {"loaded"})
    assert running.supervisord.done[0] == "start engine-a"
    assert sorted(running.supervisord.done) == ["start engine-a", "start engine-b", "start engine-c"]
    assert running.supervisord.most_loading == 1


async def test_what_a_gateway_before_has_unloaded_stays_so(start: StartModels, tmp_path: Path) -> None:
    file = tmp_path / "run" / "residency.json"
    file.parent.mkdir()
    residency_file.write({"engine-b": residency_file.EngineResidency(Residency.UNLOADED)}, file)
    models = {name: {"path": f"/models/{name}.gguf"} for name in "ab"}
    running = await start(models, budget=4000, stopped=("b",))
    await running.until(lambda: running.state("a") == "loaded")
    assert running.state("b") == "unloaded"
    assert (await ask_model(running, "b")).status == 200


async def test_where_nothing_can_be_written_models_take_turns_all_the_same(start: StartModels) -> None:
    """Only health does not learn of it."""
    running = await start(ON_DEMAND)
    file = running.box.shot.locations.run.residency
    await asyncio.to_thread(file.unlink)
    await asyncio.to_thread(file.mkdir)  # as a full disk: the file cannot be replaced
    for model in ("a", "b", "a"):
        assert (await ask_model(running, model)).status == 200
    await asyncio.to_thread(file.rmdir)
    assert (await ask_model(running, "b")).status == 200
    await running.until(lambda: residency_file.read(file)["engine-a"].state == "unloaded")


async def test_a_model_that_its_gateway_was_unloading_when_it_was_killed_is_not_there(start: StartModels) -> None:
    async def prepare(supervisord: FakeSupervisord) -> None:
        supervisord.stop_seconds = 0.5
        await supervisord.start("engine-a")
        await supervisord.stop("engine-a")

    running = await start(ON_DEMAND, prepare=prepare)
    assert running.state("a") == "unloading"
    answers = await asyncio.gather(ask_model(running, "b"), ask_model(running, "a"))
    assert [answer.status for answer in answers] == [200, 200]
    assert running.supervisord.most_running == 1


async def test_what_runs_is_known_once_supervisord_responds(start: StartModels) -> None:
    """Until then nothing is loaded: what runs may need all memory."""

    async def prepare(supervisord: FakeSupervisord) -> None:
        await supervisord.start("engine-a")
        supervisord.unreachable = True

    running = await start(ON_DEMAND, prepare=prepare)
    waiting = ask_model(running, "b")
    assert (await ask_model(running, "a")).status == 200  # the engine itself has responded
    assert not waiting.done()
    running.supervisord.unreachable = False
    assert (await waiting).status == 200
    assert running.supervisord.most_running == 1


async def test_an_engine_that_was_killed_before_its_unload_does_not_come_back(start: StartModels) -> None:
    running = await start(ON_DEMAND)
    assert (await ask_model(running, "a")).status == 200
    await running.supervisord.kill("engine-a")  # EXITED: supervisord will start it again in a moment
    assert (await ask_model(running, "b")).status == 200
    await running.until(lambda: running.supervisord.states == {"engine-a": "STOPPED", "engine-b": "RUNNING"})
    await asyncio.sleep(0.2)
    assert running.supervisord.running == ["engine-b"]
    assert running.supervisord.most_running == 1


async def test_an_engine_that_starts_without_a_response_is_stopped_before_another(start: StartModels) -> None:
    running = await start(ON_DEMAND)
    running.supervisord.loses_responses = True
    answer = await ask_model(running, "a")
    assert (answer.status, answer.error["code"]) == (503, "model_failed")
    assert running.state("a") == "failed"
    other = ask_model(running, "b")
    await asyncio.sleep(0.3)
    assert running.state("b") == "unloaded"  # what is left of a may still be in memory
    running.supervisord.loses_responses = False
    assert (await other).status == 200
    assert running.supervisord.most_running == 1


async def test_a_pin_that_is_refused_pins_nothing(start: StartModels) -> None:
    running = await start(ON_DEMAND, needs={"a": 1000, "b": 2000})
    await running.until(lambda: running.supervisord.done == [])
    assert (await ask_model(running, "a")).status == 200
    assert (await manage(running, "pin", "b")).status == 503
    shown = (await running.ask("GET", "/models/residency", key=ADMIN_KEY)).json()["models"]
    assert [one["pinned"] for one in shown] == [False, False]
    assert (await manage(running, "unpin", "a")).status == 202  # judges anew
    assert (await manage(running, "unload", "a")).status == 202
    await running.until(lambda: running.state("a") == "unloaded")
    assert (await ask_model(running, "a")).status == 200


async def test_an_unload_asked_for_before_a_load_failed_is_over(
    start: StartModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next load serves the request that it is for."""
    monkeypatch.setattr(residency_driver, "_FIRST_RETRY_SECONDS", 0.1)
    running = await start(ON_DEMAND, broken={"engine-a": "no such luck"})
    running.supervisord.slow_seconds = 0.1
    first = ask_model(running, "a")
    await running.until(lambda: running.state("a") == "loading")
    assert (await manage(running, "unload", "a")).status == 202
    assert (await first).status == 503
    running.supervisord.broken.clear()

    async def served() -> bool:
        return bool((await ask_model(running, "a")).status == 200)

    async with asyncio.timeout(10):
        while not await served():  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)
    assert running.state("a") == "loaded"
    assert running.supervisord.done.count("stop engine-a") == 0


async def test_a_model_that_turns_out_too_large_is_refused_afterwards(start: StartModels) -> None:
    """Not left to wait for a room that never comes."""
    running = await start(ON_DEMAND, needs={"a": 1, "b": 1}, budget=3, measured=4)
    assert (await ask_model(running, "a")).status == 200
    await running.until(lambda: running.state("a") == "unloaded")
    answer = await ask_model(running, "a")
    assert (answer.status, answer.error["code"]) == (503, "model_failed")
    assert "the budget is 3 MiB" in answer.error["message"]


async def test_what_was_measured_before_the_plan_is_not_forgotten(start: StartModels) -> None:
    async def prepare(supervisord: FakeSupervisord) -> None:
        await supervisord.start("engine-a")

    running = await start(
        ON_DEMAND, needs={"a": 1, "b": 1}, budget=3, prepare=prepare, planning_seconds=1.0, measured=4
    )
    await running.until(lambda: running.state("a") == "loaded")
    await running.until(lambda: running.state("a") == "unloaded")


async def test_without_a_plan_the_models_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process can be made, because there is no memory for it."""

    async def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    assert await plan_memory() == PlannedMemory()


async def described(running: RunningModels) -> dict[str, Any]:
    shown = (await running.ask("GET", "/models/residency", key=ADMIN_KEY)).json()["models"]
    return {one["name"]: one for one in shown}


async def test_a_model_of_unknown_size_is_loaded_alone_beside_what_stays_and_then_planned(start: StartModels) -> None:
    """As one that is yet to be downloaded, whose header could not be read when the appliance started."""
    needs = {"stays": 500, "a": 600}
    running = await start({"stays": {"path": "/models/stays.gguf"}, **ON_DEMAND}, needs=needs)
    assert (await ask_model(running, "a")).status == 200
    assert (await described(running))["b"]["host_bytes"] == 1000 * MIB  # all that is left
    needs["b"] = 400  # its file will be here
    assert (await ask_model(running, "b")).status == 200
    assert running.supervisord.done[1:] == ["start engine-a", "stop engine-a", "start engine-b"]
    backend = next(one for one in running.gateway.backends.all if one.name == "b")
    await running.until(lambda: backend.planned_bytes == (0, 400 * MIB))
    assert (await ask_model(running, "a")).status == 200
    assert [running.state(name) for name in ("stays", "a", "b")] == ["loaded"] * 3


@pytest.mark.parametrize("size", [500, None])
async def test_what_stays_and_is_of_unknown_size_makes_no_other_impossible(
    start: StartModels, size: int | None
) -> None:
    """It is planned once it is loaded, or counted with what it is seen to use."""
    needs = {"a": 600}
    models = {"stays": {"path": "/models/stays.gguf"}, "a": ON_DEMAND["a"]}
    running = await start(models, needs=needs, measured=300)
    if size is not None:
        needs["stays"] = size
    assert (await asyncio.wait_for(ask_model(running, "a"), 10)).status == 200
    assert [running.state(name) for name in ("stays", "a")] == ["loaded", "loaded"]
    found = (await described(running))["stays"]["host_bytes"]
    assert found == (size or 300) * MIB


async def test_what_cannot_be_planned_fails_with_its_own_cause(start: StartModels) -> None:
    """Before, it was refused for memory: it was taken to need all, beside models that stay."""
    broken = {"engine-a": "/models/a.gguf does not exist"}
    running = await start(
        {"stays": {"path": "/models/stays.gguf"}, "a": ON_DEMAND["a"]}, needs={"stays": 500}, broken=broken
    )
    response = await ask_model(running, "a")
    assert (response.status, response.json()["error"]["code"]) == (503, "model_failed")
    assert "does not exist" in response.json()["error"]["message"]


async def test_a_gateway_that_stops_serves_what_is_loaded_and_refuses_the_rest(start: StartModels) -> None:
    """At once, not when the time to stop is over: nobody loads a model any more."""
    running = await start(ON_DEMAND, settings={"gateway": {"sse_keepalive_seconds": 0.05}})
    inside = ask_model(running, "a", delay=3.5)
    await running.until(lambda: running.state("a") == "loaded")
    body = chat(stream=True) | {"model": "b"}
    stream = asyncio.create_task(running.ask("POST", "/v1/chat/completions", body=body))
    plain = ask_model(running, "b")
    await running.until(lambda: running.state("a") == "draining")
    late = ask_model(running, "a")
    await asyncio.sleep(0.2)
    await running.gateway.drain(15, asyncio.Event())
    refused = await plain
    assert (refused.status, refused.error["code"]) == (503, "model_loading")
    assert "model_loading" in (await stream).events[-1]
    assert [(await one).status for one in (inside, late)] == [200, 200]
    assert running.supervisord.done == ["start engine-a"]


async def test_a_start_whose_response_comes_too_late_cuts_nothing_short(
    start: StartModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start(ON_DEMAND)
    started = running.supervisord.start_program

    def start_and_be_late(name: str) -> None:
        started(name)
        time.sleep(0.5)
        raise SupervisordError("timed out")

    monkeypatch.setattr(running.supervisord, "start_program", start_and_be_late)
    assert (await ask_model(running, "a", delay=1.0)).status == 200
    assert running.state("a") == "loaded"
    assert running.supervisord.done == ["start engine-a"]
