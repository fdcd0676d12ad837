"""Random schedules of requests, failures and an operator's wishes, on the driver as it is and a stand-in supervisord.

Whatever comes: the engines that run fit together, each request gets one response, right or a clean error, no engine is
stopped with a request in it, and in the end every model serves.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.gateway.backends import residency_driver
from support.gateway_box import ADMIN_KEY, KEY
from support.http_client import Answer
from support.running_gateway import chat
from support.running_models import RunningModels, running_models

NAMES = "abcd"
NEEDS = {"a": 600, "b": 500, "c": 400, "d": 900}
BUDGET = 1100
REFUSALS = {"model_failed", "queue_full", "queue_timeout", "model_loading", "engine_unreachable", "engine_closed"}
SETTINGS: dict[str, Any] = {
    "models": {name: {"path": f"/models/{name}.gguf", "load": "on_demand"} for name in NAMES},
    "memory": {"min_resident_seconds": 0.02, "max_swap_wait_seconds": 1.0},
    "limits": {"queue": {"max_wait_seconds": 15, "max_size": 200}},
}


@dataclass
class Schedule:
    """One run: what is done to a gateway, by chance, and what came of it."""

    running: RunningModels
    chance: random.Random
    killed: bool = False
    answers: list[Answer] = field(default_factory=list)
    left: int = 0

    async def request(self) -> None:
        """A request, plain or as a stream, whose client may leave."""
        await asyncio.sleep(self.chance.uniform(0, 1.5))
        body = chat(stream=self.chance.random() < 0.3, delay=self.chance.choice((0, 0, 0.1, 0.3)))
        body["model"] = self.chance.choice(NAMES)
        asked = asyncio.ensure_future(self.running.ask("POST", "/v1/chat/completions", body=body, key=KEY))
        if self.chance.random() < 0.2:
            await asyncio.sleep(self.chance.uniform(0, 0.4))
            if asked.cancel():
                self.left += 1
                await asyncio.gather(asked, return_exceptions=True)
                return
        self.answers.append(await asked)

    async def trouble(self) -> None:
        """Something that goes wrong, or an operator who changes the models."""
        await asyncio.sleep(self.chance.uniform(0, 1.5))
        supervisord, name = self.running.supervisord, self.chance.choice(NAMES)
        match self.chance.choice(("kill", "break", "lose", "silence", "load", "unload", "pin", "unpin")):
            case "kill":
                self.killed = True
                await supervisord.kill(f"engine-{name}")
            case "break":
                supervisord.broken[f"engine-{name}"] = "no such luck"
                await asyncio.sleep(0.2)
                supervisord.broken.clear()
            case "lose":
                supervisord.loses_responses = True
                await asyncio.sleep(0.2)
                supervisord.loses_responses = False
            case "silence":
                supervisord.unreachable = True
                await asyncio.sleep(0.2)
                supervisord.unreachable = False
            case action:
                answer = await self.running.ask("POST", f"/models/{action}", body={"model": name}, key=ADMIN_KEY)
                assert answer.status in (202, 503), answer.body

    async def run(self, requests: int, troubles: int) -> None:
        """Do all of it at once."""
        await asyncio.gather(
            *(self.request() for _ in range(requests)),
            *(self.trouble() for _ in range(troubles)),
        )


async def serves(running: RunningModels, name: str) -> bool:
    answer = await running.ask("POST", "/v1/chat/completions", body=chat() | {"model": name}, key=KEY)
    assert answer.status in (200, 502, 503), answer.body
    return answer.status == 200


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_comes_models_fit_and_every_request_has_its_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(residency_driver, "_FIRST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(residency_driver, "_MAX_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(residency_driver, "_STOP_AGAIN_SECONDS", 0.1)
    chance = random.Random(seed)
    async with running_models(
        tmp_path, SETTINGS, needs=NEEDS, budget=BUDGET, loading_seconds=chance.uniform(0, 0.15)
    ) as running:
        supervisord = running.supervisord
        supervisord.stop_seconds = chance.choice((0.0, 0.1))
        supervisord.slow_seconds = chance.choice((0.0, 0.0, 0.02))
        schedule = Schedule(running, chance)
        await schedule.run(60, seed % 4 * 5)

        assert len(schedule.answers) + schedule.left == 60
        for answer in schedule.answers:
            assert answer.complete
            if answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream"):
                ended = answer.events[-1]
                assert ended == "data: [DONE]" or schedule.killed or '"error"' in answer.body.decode()
            elif answer.status != 200:
                assert answer.error["code"] in REFUSALS, answer.body
        if not seed % 4:  # nothing went wrong
            assert {answer.status for answer in schedule.answers} == {200}
        assert supervisord.most_needed <= BUDGET, Counter(supervisord.done)
        assert supervisord.cut_short <= schedule.left  # of clients that have left, which an engine sees a little later
        for name in NAMES:
            assert (await running.ask("POST", "/models/unpin", body={"model": name}, key=ADMIN_KEY)).status == 202
        async with asyncio.timeout(20):
            for name in NAMES:
                while not await serves(running, name):  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.05)
        assert supervisord.most_needed <= BUDGET
        shown = (await running.ask("GET", "/models/residency", key=ADMIN_KEY)).json()["models"]
        assert {(one["running"], one["waiting"]) for one in shown} == {(0, 0)}
