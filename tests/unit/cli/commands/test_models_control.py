"""`llama-gguf models load|unload|pin|unpin` on a real gateway: as an operator, and as somebody without the right."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.cli.__main__ import run as run_cli
from llama_gguf.errors import ExitCode
from llama_gguf.rundir import engine_phase, snapshot
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings.loading.known_variables import ADMIN_KEY_VARIABLE
from llama_gguf.states import Phase
from support.gateway_box import ADMIN_KEY, KEY, make_box
from support.http_client import Answer
from support.running_gateway import chat
from support.running_models import RunningModels, running_models

ON_DEMAND: dict[str, Any] = {
    "a": {"path": "/models/a.gguf", "load": "on_demand"},
    "b": {"path": "/models/b.gguf", "load": "on_demand"},
}
QUICK = {"min_resident_seconds": 0.01, "max_swap_wait_seconds": 5.0}


class Operator:
    """Somebody at the command line of a running appliance."""

    def __init__(self, running: RunningModels, capsys: pytest.CaptureFixture[str]) -> None:
        self.running = running
        self._capsys = capsys
        self.out = self.err = ""
        shot = running.box.shot
        gateway = shot.settings.gateway.model_copy(update={"port": running.port})
        moved = Snapshot(settings=shot.settings.model_copy(update={"gateway": gateway}), locations=shot.locations)
        snapshot.write(moved, shot.locations.run.snapshot)
        self._run_dir = str(shot.locations.run.root)

    async def models(self, *arguments: str, code: int = 0) -> str:
        """Run the command, and return its stdout."""
        found = await asyncio.to_thread(run_cli, ["models", *arguments, "--run-dir", self._run_dir])
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        assert found == code, (self.out, self.err)
        assert ADMIN_KEY not in self.out + self.err
        return self.out

    async def long_request(self, seconds: float) -> asyncio.Task[Answer]:
        """Begin a request of the model a that takes so long, and return it once it is in the engine."""
        body = chat(delay=seconds) | {"model": "a"}
        request = asyncio.create_task(self.running.ask("POST", "/v1/chat/completions", body=body))
        backend = self.running.gateway.backends.first
        await self.running.until(lambda: backend.demand.running == 1)
        return request


Start = Callable[..., Any]


@pytest.fixture
async def start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, ADMIN_KEY)
    async with AsyncExitStack() as stack:

        async def enter(**options: Any) -> Operator:
            settings = {"models": ON_DEMAND, "memory": QUICK} | options.pop("settings", {})
            needs = dict.fromkeys(settings["models"], 1000)
            running = running_models(tmp_path, settings, needs=needs, budget=1500, **options)
            entered = await stack.enter_async_context(running)
            return await asyncio.to_thread(Operator, entered, capsys)

        yield enter


async def test_an_operator_loads_unloads_pins_and_unpins(start: Start) -> None:
    operator = await start()
    assert await operator.models("load", "a") == "a: loaded\n"
    assert operator.running.state("a") == "loaded"
    assert await operator.models("pin", "a") == "a: loaded, pinned\n"
    assert await operator.models("unpin", "a") == "a: loaded\n"
    assert await operator.models("unload", "a") == "a: unloaded\n"
    assert operator.running.supervisord.done == ["start engine-a", "stop engine-a"]
    audit = await asyncio.to_thread(operator.running.box.shot.locations.audit_file.read_text)
    done = [(line["actor"], line["action"], line["target"]) for line in map(json.loads, audit.splitlines())]
    assert done == [("boss", f"models.{action}", "a") for action in ("load", "pin", "unpin", "unload")]


async def test_loading_makes_another_give_way(start: Start) -> None:
    operator = await start()
    await operator.models("load", "a")
    found = json.loads(await operator.models("load", "b", "--json"))
    assert (found["name"], found["state"], found["load_requested"]) == ("b", "loaded", False)
    assert operator.running.state("a") == "unloaded"


async def test_without_waiting_it_says_what_was_asked_for(start: Start) -> None:
    operator = await start(loading_seconds=0.5)
    assert await operator.models("load", "a", "--no-wait") == "a: unloaded, asked to load\n"
    await operator.running.until(lambda: operator.running.state("a") == "loaded")


async def test_unloading_waits_for_the_requests_in_it(start: Start) -> None:
    operator = await start()
    await operator.models("load", "a")
    request = await operator.long_request(1.0)
    assert await operator.models("unload", "a") == "a: unloaded\n"
    assert (await request).status == 200


async def test_a_failed_load_says_why_and_what_to_do_and_can_be_repeated(start: Start) -> None:
    operator = await start(broken={"engine-a": "the file is\x1b[2J damaged"})
    for _ in range(2):  # the failure before must not count as this one's, nor end the wait at once
        await operator.models("load", "a", code=ExitCode.UNAVAILABLE)
        assert "error: a could not be loaded: the file is" in operator.err
        assert "\x1b[2J" not in operator.err
        assert "engine-a.log" in operator.err
    operator.running.supervisord.broken.clear()
    assert await operator.models("load", "a") == "a: loaded\n"
    assert operator.running.supervisord.done == ["start engine-a"] * 3


async def test_a_load_that_waits_for_others_ends_when_somebody_unloads_it(start: Start) -> None:
    operator = await start()
    await operator.models("load", "a")
    request = await operator.long_request(4.0)
    loading = asyncio.create_task(operator.models("load", "b", code=ExitCode.UNAVAILABLE))
    await operator.running.until(lambda: operator.running.state("a") == "draining")
    gone = await operator.running.ask("POST", "/models/unload", body={"model": "b"}, key=ADMIN_KEY)
    assert gone.status == 202
    await loading
    assert "b is unloaded, not loaded: another operator unloaded it" in operator.err
    assert (await request).status == 200
    assert "start engine-b" not in operator.running.supervisord.done


async def test_a_model_that_comes_back_instead_of_leaving_counts_as_loaded(start: Start) -> None:
    """Its load, which nothing waits for any more, must not keep it from being unloaded when others need the room."""
    operator = await start()
    await operator.models("load", "a")
    request = await operator.long_request(1.0)
    await operator.models("unload", "a", "--no-wait")
    await operator.running.until(lambda: operator.running.state("a") == "draining")
    await operator.models("load", "a")
    assert (await request).status == 200
    found = json.loads(await operator.models("load", "b", "--json"))
    assert found["state"] == "loaded"


@pytest.mark.parametrize("action", ["load", "unload", "pin", "unpin"])
@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, "needs a key with the scope admin"),
        ("", "needs a key with the scope admin"),
        (KEY, "lacks the scope `admin`"),
        ("sk-unknown-0000000000000000000", "Invalid or expired API key"),
        ("two\r\nX-Admin: 1", "a key must be"),
        ("kürzer-als-gedacht", "a key must be"),
    ],
)
async def test_nobody_else_can(
    start: Start, monkeypatch: pytest.MonkeyPatch, action: str, key: str | None, says: str
) -> None:
    operator = await start()
    if key is None:
        monkeypatch.delenv(ADMIN_KEY_VARIABLE)
    else:
        monkeypatch.setenv(ADMIN_KEY_VARIABLE, key)
    await operator.models(action, "a", code=ExitCode.CONFIG)
    assert says in operator.err
    assert "hint: " in operator.err
    assert not key or key not in operator.err
    assert operator.running.supervisord.done == []


async def test_the_key_can_come_from_a_file_or_stdin(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, "sk-unknown-0000000000000000000")
    operator = await start()
    file = tmp_path / "key"
    file.write_text(f'"{ADMIN_KEY}"\r\n')
    assert await operator.models("load", "a", "--key-file", str(file)) == "a: loaded\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ADMIN_KEY.encode() + b"\n")))
    assert await operator.models("unload", "a", "--key-file", "-") == "a: unloaded\n"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"x" * 10_000, b"a b c d e f g h i j k l"])
async def test_a_file_that_holds_no_key(start: Start, tmp_path: Path, content: bytes | None) -> None:
    operator = await start()
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    await operator.models("load", "a", "--key-file", str(file), code=ExitCode.CONFIG)
    assert "error: --key-file: " in operator.err


async def test_no_key_on_the_command_line(start: Start) -> None:
    """Arguments are visible to every user of the machine, so there is no option that takes a key."""
    operator = await start()
    await operator.models("load", "a", "--key", "x" * 20, code=ExitCode.USAGE)


async def test_an_unknown_model_and_one_that_never_fits(start: Start) -> None:
    operator = await start()
    await operator.models("load", "nobody", code=ExitCode.CONFIG)
    assert "There is no model 'nobody'" in operator.err
    await operator.models("pin", "a")
    await operator.models("load", "b", code=ExitCode.UNAVAILABLE)
    assert "cannot be loaded" in operator.err


async def test_without_authentication_nobody_is_an_operator(start: Start) -> None:
    operator = await start(settings={"auth": {"enabled": False}})
    await operator.models("load", "a", code=ExitCode.CONFIG)
    assert "authentication is off" in operator.err
    assert "auth.enabled" in operator.err


async def test_the_list_shows_what_is_in_memory(
    start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await start()
    await operator.models("load", "a")
    config = tmp_path / "config.yaml"
    paths = {"data_dir": str(tmp_path / "data"), "run_dir": str(operator.running.box.shot.locations.run.root)}
    config.write_text(json.dumps({"models": ON_DEMAND, "paths": paths}))

    async def listed(*options: str) -> str:
        assert await asyncio.to_thread(run_cli, ["models", "list", "--config", str(config), *options]) == 0
        return capsys.readouterr().out

    with_key = {one["name"]: one for one in json.loads(await listed("--json"))["models"]}
    assert {name: one["state"] for name, one in with_key.items()} == {"a": "loaded", "b": "unloaded"}
    assert with_key["a"]["host_bytes"] == 1000 << 20
    table = [line.split() for line in (await listed()).splitlines()[:3]]
    assert table[0] == ["MODEL", "STATE", "REQUESTS", "WAITING", "GPU", "RAM", "NOTES"]
    assert table[1] == ["a", "loaded", "0", "0", "1000", "MiB", "on", "demand"]
    for key in (None, "nonsense"):
        monkeypatch.delenv(ADMIN_KEY_VARIABLE) if key is None else monkeypatch.setenv(ADMIN_KEY_VARIABLE, key)
        states = {one["name"]: one["state"] for one in json.loads(await listed("--json"))["models"]}
        assert states == {"a": "loaded", "b": "unloaded"}
        assert "host_bytes" not in await listed("--json")
        assert [line.split()[:2] for line in (await listed()).splitlines()[1:3]] == [["a", "loaded"], ["b", "unloaded"]]
    monkeypatch.setattr("llama_gguf.cli.gateway_calls.http.client.HTTPConnection.request", _refuse)
    assert json.loads(await listed("--json"))["models"] is None


async def test_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, ADMIN_KEY)
    assert run_cli(["models", "load", "a", "--run-dir", str(tmp_path)]) == ExitCode.UNAVAILABLE
    assert f"nothing runs in {tmp_path}" in capsys.readouterr().err
    box = await asyncio.to_thread(make_box, tmp_path / "box", {"models": ON_DEMAND})
    arguments = ["models", "load", "a", "--run-dir", str(box.shot.locations.run.root)]
    assert await asyncio.to_thread(run_cli, arguments) == ExitCode.UNAVAILABLE
    assert "does not answer" in capsys.readouterr().err


async def test_it_says_how_far_a_slow_load_is(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_gguf.cli.commands.models_control.LINE_SECONDS", 0.2)
    operator = await start(loading_seconds=1.5)
    run = operator.running.box.shot.locations.run.of_engine("engine-a")
    phase = EnginePhase(Phase.DOWNLOADING, "a", bytes_done=30, bytes_total=120, pid=os.getpid())
    await asyncio.to_thread(run.engine_phase.write_text, json.dumps(phase.as_data()))
    assert engine_phase.read(run.engine_phase) == phase
    await operator.models("load", "a")
    assert "a: loading, downloading, 25 %, " in operator.err


async def test_a_gateway_that_goes_away_ends_the_wait(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = await start(loading_seconds=30.0)
    waiting = asyncio.create_task(operator.models("load", "a", code=ExitCode.UNAVAILABLE))
    await operator.running.until(lambda: operator.running.state("a") == "loading")
    monkeypatch.setattr("llama_gguf.cli.gateway_calls.http.client.HTTPConnection.request", _refuse)
    await waiting
    assert "does not answer" in operator.err


def _refuse(*_: object, **__: object) -> None:
    raise ConnectionRefusedError(111, "Connection refused")
